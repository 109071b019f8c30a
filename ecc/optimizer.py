"""torch's Adam (Kingma and Ba, ICLR 2015) for what is not compiled.

By their decorators torch's optimizers import its compiler as soon as they are made, whether or not
anything is compiled: one to three seconds, longer than many a training here.
"""

from inspect import unwrap

import torch
from torch.optim import Adam


class EagerAdam(Adam):
    """The same steps, to the bit: the same functions, without the decorators around them."""

    add_param_group = unwrap(Adam.add_param_group)
    zero_grad = unwrap(Adam.zero_grad)
    state_dict = unwrap(Adam.state_dict)
    load_state_dict = unwrap(Adam.load_state_dict)
    step = torch.no_grad()(unwrap(Adam.step))
