"""Which sources a script depends on: all that it needs, and not the whole library."""

from pathlib import Path

from ecc.sources import imported, own_network

ROOT = Path(__file__).parents[1]


def test_imports_are_followed_by_rooms(tmp_path):
    files = {
        "house/__init__.py": "",
        "house/a.py": "from house import b",
        "house/b.py": "import numpy",
        "house/room/__init__.py": "from house.room import chair",
        "house/room/chair.py": "def sit():\n    from house.lazy import x",
        "house/room/by_name.py": "import house.c.d",
        "house/lazy.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import house.a",
        "house/c.py": "",
        "house/unused.py": "",
        "script.py": "import house.room",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = imported(tmp_path / "script.py", tmp_path / "house")
    names = [str(Path(file).relative_to(tmp_path / "house")) for file in found]
    assert names == [
        "__init__.py",
        "c.py",
        "lazy.py",
        "room/__init__.py",
        "room/by_name.py",
        "room/chair.py",
    ]


def test_figures_do_not_depend_on_training_nor_training_on_figures():
    def rooms(script):
        files = imported(ROOT / "workflow_scripts" / f"{script}.py", ROOT / "ecc")
        return {Path(file).relative_to(ROOT / "ecc").parts[0] for file in files}

    assert "training.py" not in rooms("figures")
    assert "evidence" not in rooms("finetune")
    assert {"methods", "energy", "training.py"} <= rooms("compress")
    assert "platforms" not in rooms("compress")


def test_a_network_of_the_users_depends_on_its_own_files(tmp_path):
    files = {
        "mine/__init__.py": "",
        "mine/net.py": "import tools\nfrom . import parts\nfrom .more.heads import Head",
        "mine/parts.py": "",
        "mine/more/heads.py": "from ..base import Base",
        "mine/base.py": "def broken(:",
        "mine/unused.py": "",
        "tools.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = own_network("mine.net:build", tmp_path)
    names = {str(Path(file).relative_to(tmp_path)) for file in found}
    assert names == {*files} - {"mine/unused.py"}
    assert own_network("torchvision.models:resnet18", tmp_path) == []
    assert own_network("mobilenet", tmp_path) == []
