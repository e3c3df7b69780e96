"""Training. Start with ``trainer.py``: the one loop, from the options to the optimizer step.

On the way of a batch:

- ``trainer.py``: starts a run, runs its steps; the only place that steps an optimizer
- ``run.py``, ``pretrained.py``: build a run: networks, optimizers, average; the weights that it starts from
- ``prefetch.py``: the batches of each step, on the device
- ``precision.py``: autocast, loss scaling, memory layout, compilation
- ``guards.py``: gradient clipping, values that are not finite, stop requests, bad clips, out of memory
- ``ema.py``, ``schedules.py``: average of the weights; learning-rate schedules
- ``joining.py``, ``peers.py``: several processes: how they start together, and notice that one is lost
- ``distributed.py``: their collective operations, and the networks that they share

Around it:

- ``checkpoint.py``: saves and restores a run
- ``folder.py``: the files in the run's folder: which exist, which are kept, which a resume starts from
- ``validation.py``: scores the validation clips; previews a training clip
- ``progress.py``, ``records.py``: what a step reports; log files, TensorBoard, W&B
- ``codebook.py``: how many codes are in use
- ``profile.py``: time of each part of a step
- ``dry_run.py``: one step of each phase, writing nothing
"""
