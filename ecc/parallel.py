"""Several processes that train one network, a GPU each: every one takes its part of each batch.

All do the same work on the same numbers; their gradients are added up after every backward pass, so
that weights stay the same in all. Only the first writes files (`ecc.runs.temporary`). A signal to
one of them, or to the process that has launched them, ends all at the same iteration.
"""

import logging
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, distributed, nn

from ecc import stopping
from ecc.errors import UserError

SAVES_S = 60.0  # what processes may take to end by themselves


def launch(processes: int, device: str, work: Callable[[], None]) -> None:
    """Runs `work` in as many processes at once, by accelerate; in this one where it is 1.

    On GPUs unless `device` is "cpu" or there are none. Raises UserError for fewer GPUs than
    processes, for a `device` that is one of them, and what `work` raises of that kind.
    """
    if processes == 1:
        return work()
    from accelerate import debug_launcher, notebook_launcher  # here: the import costs a second

    if ":" in device:
        raise UserError(f"device: {device} is one GPU, training.processes {processes}: use cuda")
    gpus = 0 if device == "cpu" else torch.cuda.device_count()
    if 0 < gpus < processes:
        raise UserError(f"training.processes: {processes}, but there are {gpus} GPUs: use fewer")
    with TemporaryDirectory() as folder:
        said = Path(folder) / "error"
        try:
            if gpus:
                notebook_launcher(
                    _guarded, (work, said), num_processes=processes, use_port=_free_port()
                )
            else:
                debug_launcher(_guarded, (work, said), num_processes=processes)
        except Exception as error:
            if said.exists():
                raise UserError(said.read_text()) from error
            if number := getattr(error, "sigval", 0):  # torch's launcher has heard a signal
                sys.exit(128 + number)
            # The whole traceback of a process: its last line says what it was.
            raise RuntimeError(str(error).strip().splitlines()[-1]) from error
        finally:
            _end(multiprocessing.active_children())


def _end(children: Sequence[BaseProcess]) -> None:
    """Asks processes to end, which may have to save first; a signal meanwhile kills them."""
    try:
        for child in children:
            child.terminate()
        until = time.monotonic() + SAVES_S
        for child in children:
            child.join(max(0.0, until - time.monotonic()))
    finally:
        for child in children:
            child.kill()


def _free_port() -> str:
    """A port at which the processes of this job meet, and those of no other."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def _guarded(work: Callable[[], None], said: Path) -> None:
    from accelerate import PartialState

    stopping.listen(patient=True)  # not as torch's launcher does
    state = PartialState()
    os.environ["RANK"] = str(state.process_index)
    torch.set_num_threads(max(1, torch.get_num_threads() // state.num_processes))
    if state.process_index:
        logging.disable()  # the first speaks for all
    try:
        work()
    except UserError as error:
        said.write_text(str(error))
        raise


def place() -> tuple[int, int]:
    """Which process this is, and of how many."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def asked() -> bool:
    """Whether one of the processes is asked to end; then all are (`ecc.stopping`)."""
    if place()[1] > 1:
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        number = torch.tensor(stopping.number(), device=device)
        distributed.all_reduce(number, distributed.ReduceOp.MAX)
        # What all have agreed on. A signal that came meanwhile is for the next time: this process
        # would leave alone, and the others wait for it.
        stopping.ask(int(number))
        return bool(number)
    return stopping.asked()


def leave() -> None:
    """Ends all processes, of which each has heard so from `asked`, once the first has saved."""
    if place()[1] > 1:
        distributed.barrier()
    stopping.leave_if_asked()


def own_parts(tensor: Tensor, parts: int) -> Sequence[Tensor]:
    """Of the batch `tensor` (images, ...), in `parts` for each process, those of this one."""
    rank, size = place()
    return tensor.tensor_split(parts * size)[rank::size]


def add_up(model: nn.Module, loss: float) -> float:
    """Adds the gradients of all processes, in place in each, and their losses."""
    if place()[1] == 1:
        return loss
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    like = gradients[0]
    together = torch.cat([*(g.reshape(-1) for g in gradients), like.new_tensor([loss])])
    distributed.all_reduce(together)
    _spread(together, gradients)
    return float(together[-1])


def level(model: nn.Module) -> None:
    """Gives all processes the mean of their batch-norm statistics."""
    if (size := place()[1]) == 1:
        return
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    together = torch.cat([buffer.reshape(-1) for buffer in buffers])
    distributed.all_reduce(together)
    _spread(together / size, buffers)


@torch.no_grad()
def _spread(together: Tensor, tensors: Sequence[Tensor]) -> None:
    ends = [0]
    for tensor in tensors:
        ends.append(ends[-1] + tensor.numel())
        tensor.copy_(together[ends[-2] : ends[-1]].view(tensor.shape))
