"""The model card of a compressed network: Markdown, with the front matter of Hugging Face."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import yaml

from ecc.counts import COUNTS, Count
from ecc.data import DATASETS
from ecc.data.splits import NORMALISATIONS
from ecc.metrics import UNITS, WORDS
from ecc.sources import MARK
from ecc.structure import Structure
from ecc.tasks import Classification, Segmentation

SCORES = {  # by task, as Hugging Face calls it
    "image-classification": Classification.name,
    "image-segmentation": Segmentation.name,
}


@dataclass(frozen=True)
class Images:
    """What a network was trained on; `counts` are images by split, `sha256` their checksums.

    `settings` are those of the dataset, as the configuration has them; empty where it is given
    without.
    """

    name: str
    source: str = ""
    classes: Sequence[str] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> Self:
        """From the manifest.json of a prepared dataset (`ecc.data.prepare`)."""
        settings, splits = manifest["settings"], manifest["splits"]
        background = ["background"] * settings.get("label_offset", 0)
        return cls(
            name=manifest["name"],
            source=manifest["source"],
            classes=[*background, *manifest["classes"]],
            counts={name: split["images"] for name, split in splits.items()},
            sha256={name: split["sha256"] for name, split in splits.items()},
            settings=settings,
        )

    @property
    def normalisation(self) -> dict[str, list[float]] | None:
        """Mean and deviation of the channels, for pixels in [0, 1]; None where they are unknown."""
        known = NORMALISATIONS.get(str(self.settings.get("normalisation")))
        return known and {"mean": list(known[0]), "deviation": list(known[1])}

    @property
    def embedded(self) -> bool:
        """Whether this project makes or carries the images itself."""
        kind = DATASETS.get(self.name)
        return kind is not None and kind.embedded


@dataclass(frozen=True)
class Facts:
    """What is known of a compressed network; energies in joules, or in seconds by `metric`.

    `groups` are {name, width, full_width} of every channel group; `measured_energy_j` is None where
    the platform could not measure these widths. `settings` are all that decided the result.
    """

    groups: Sequence[Mapping[str, Any]]
    method: str
    platform: str
    description: str
    emulated: bool
    metric: str
    accuracy: float
    accuracy_before_finetuning: float
    dense_accuracy: float
    budget_j: float
    dense_energy_j: float
    modelled_energy_j: float
    measured_energy_j: float | None
    images: Images
    settings: Mapping[str, Any]

    @property
    def widths(self) -> list[int]:
        return [int(group["width"]) for group in self.groups]

    def value(self, joules: float | None) -> str:
        """An energy with its unit; in words where there is none."""
        return "not measured" if joules is None else f"{joules:.4g} {UNITS[self.metric]}"


def card(
    facts: Facts, structure: Structure, architecture: str, size: tuple[int, int], task: str
) -> str:
    """The card's text; `task` is one of SCORES, `size` the height and width of deployment."""
    title = f"{architecture}, compressed by {facts.method} to {facts.value(facts.budget_j)}"
    parts = [
        _front_matter(facts, title, task),
        f"# {title}",
        _summary(facts, architecture),
        _comparison(facts, structure, SCORES[task]),
        _use(facts, architecture, size, task),
        _data(facts.images),
        f"## Widths\n{_widths(facts)}",
        f"## Settings\n```yaml\n{_yaml(facts.settings)}```",
        _licence(facts.images),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts, title: str, task: str) -> str:
    score = SCORES[task].lower().replace(" ", "_")  # as Hugging Face calls it
    result = {
        "task": {"type": task},
        "dataset": {"name": facts.images.name, "type": facts.images.name},
        "metrics": [{"type": score, "value": facts.accuracy, "name": f"validation {SCORES[task]}"}],
    }
    matter = {
        "license": "mit" if facts.images.embedded else "other",
        "library_name": "ecc",
        "pipeline_tag": task,
        "tags": ["energy-constrained-compression", "channel-pruning", facts.method],
        "metrics": [score],
        "model-index": [{"name": title, "results": [result]}],
    }
    return f"---\n{_yaml(matter)}---"


def _summary(facts: Facts, architecture: str) -> str:
    word = WORDS[facts.metric]
    emulated = " The platform is emulated: nothing was measured on hardware."
    return (
        f"A {architecture} from which the method `{facts.method}` removed channels, for a budget "
        f"of {facts.value(facts.budget_j)} of {word} an inference on "
        f"{facts.description}.{emulated if facts.emulated else ''}"
    )


def _comparison(facts: Facts, structure: Structure, score: str) -> str:
    word = WORDS[facts.metric]
    before = facts.accuracy_before_finetuning
    rows = [
        (f"validation {score}", f"{facts.dense_accuracy:.4f}", f"{facts.accuracy:.4f}"),
        (f"validation {score} before fine-tuning", "", f"{before:.4f}"),
        (f"{word}, budget", "", facts.value(facts.budget_j)),
        (f"{word}, by the energy model", "", facts.value(facts.modelled_energy_j)),
        (
            f"{word}, measured",
            facts.value(facts.dense_energy_j),
            facts.value(facts.measured_energy_j),
        ),
    ]
    for name in COUNTS:
        count = Count(name, structure)
        both = (int(count.energy(widths)) for widths in (structure.full_widths, facts.widths))
        dense, slim = (f"{value:,}" for value in both)
        rows.append((f"{name}, bytes" if name == "memory" else name, dense, slim))
    return "\n".join(_table(("One inference, one image", "Dense", "Compressed"), rows))


def _use(facts: Facts, architecture: str, size: tuple[int, int], task: str) -> str:
    trust = ", trust=True" if MARK in architecture else ""
    normalised = "normalised as in training"
    if known := facts.images.normalisation:
        mean, deviation = known["mean"], known["deviation"]
        normalised = f"pixels from 0 to 1, less {mean}, over {deviation}"
    shape = "batch, classes" + (", height, width" if task == "image-segmentation" else "")
    height, width = size
    return f"""## Use
```python
import ecc

model = ecc.load("this/folder"{trust})  # a torch.nn.Module in evaluation mode
```
Images are RGB, float32 (batch, 3, height, width), {normalised}; scores are ({shape}).
Energies are those at {height}x{width} pixels, the size of `model.pt2`
(`torch.export.load(path).module()`) and of `model.onnx` (input `images`, output `scores`), which
take any batch."""


def _data(images: Images) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in images.counts.items())
    lines = [f"## Data\n`{images.name}`" + (f": {images.source}." if images.source else ".")]
    if counts:
        lines.append(f"Images: {counts}; {len(images.classes)} classes.")
    lines += [f"- sha256 of {name}: `{digest}`" for name, digest in images.sha256.items()]
    return "\n".join(lines)


def _widths(facts: Facts) -> str:
    rows = [(f"`{g['name']}`", str(g["full_width"]), str(g["width"])) for g in facts.groups]
    return "\n".join(_table(("Channel group", "Dense", "Compressed"), rows))


def _licence(images: Images) -> str:
    terms = (
        "The images are made or carried by the same project."
        if images.embedded
        else "The weights come from data that are not: their terms hold for the weights as well."
    )
    return f"## Licence\nThe code that made and that builds this network is MIT. {terms}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _yaml(values: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(_plain(values), sort_keys=False, allow_unicode=True, width=1000)
    return text


def _plain(value: Any) -> Any:
    """Mappings and sequences of any kind as those that YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
