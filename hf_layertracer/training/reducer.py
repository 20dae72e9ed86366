"""DDP and parameters that are thawed or frozen later.

DDP averages the gradients of the parameters that required one when the model was wrapped, waits for each of them in every
backward pass, and holds buffers as large as all of them. The training loop holds the wrapper, so it is made again in place.
"""

from __future__ import annotations

from torch.nn.parallel import DistributedDataParallel


_SETTINGS = (
    *("device_ids", "output_device", "dim", "process_group", "find_unused_parameters", "gradient_as_bucket_view"),
    *("mixed_precision", "skip_all_reduce_unused_params", "batched_grad_copy", "forward_sync_buffers"),
)


def watch_again(wrapper: DistributedDataParallel) -> None:
    """Lets DDP average the gradients of the parameters that require one now.

    Args:
        wrapper (`DistributedDataParallel`): The wrapped model, between two steps.
    """
    settings = {name: getattr(wrapper, name) for name in _SETTINGS}
    static, training, hooks = wrapper.static_graph, wrapper.training, list(wrapper._comm_hooks)
    megabytes = wrapper.bucket_bytes_cap / 2**20
    # The weights are the same on all processes: nothing to send.
    DistributedDataParallel.__init__(wrapper, wrapper.module, init_sync=False, bucket_cap_mb=megabytes, **settings)
    if static:
        wrapper._set_static_graph()
    for hook, state in hooks:
        wrapper.register_comm_hook(state, hook)
    wrapper.training = training
