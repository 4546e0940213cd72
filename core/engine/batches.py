"""Make the batches that trainers get: on the device, with their noise and the text encoder."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from t2i.core.engine.loader import BatchShard, HostBatch, Patient, batch_visits
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.text_cache import TextCache
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch
from t2i.core.io.images import to_tensor
from t2i.core.settings.engine import EngineConfig

GALLERY, FIRST_FINISH = -1, -2
"""Keys of `StepNoise` outside the steps, which count from 0: of the grids, and of the first batch
of `Trainer.finish` (its further batches count down from there)."""


class BatchMaker:
    """Makes a trainer's batches from what a loader read.

    Features of a frozen text encoder come from a `TextCache`.

    Args:
        prepared: The stage, with its device and text encoder.
        settings: The stage's settings.
    """

    def __init__(self, prepared: PreparedStage, settings: EngineConfig) -> None:
        self._settings = settings
        self._device = prepared.device
        encoder = prepared.model.text_encoder
        cache = TextCache(encoder)
        trains = prepared.encoder_trains
        self._encode, self._null = (encoder.encode, encoder.null) if trains else (cache, cache.null)

    def make(self, host: HostBatch, step: int, shard: BatchShard, part: int = 0) -> Batch:
        """Make a batch, or this process's part of one.

        Args:
            host: The examples that were read.
            step: Step of the run, from 0, or a negative key; it keys the noise.
            shard: Which rows of the global batch this process takes.
            part: Index of the micro-batch within the batch, from 0 (`accumulate`).

        Returns:
            The batch, on the stage's device.
        """
        device = self._device
        images = to_tensor(host.images, device)
        if self._settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return Batch(
            images=images,
            captions=host.captions,
            keys=host.keys,
            noise=StepNoise(
                self._settings.seed, step, shard.start(part), len(images), shard.total, device
            ),
            encode=self._encode,
            extras={
                k: v.to(device) if isinstance(v, torch.Tensor) else v
                for k, v in host.extras.items()
            },
            encode_null=self._null,
            encoded=None if host.encoded is None else host.encoded.to(device),
            features=None if host.text is None else host.text.to(device),
            choices=host.choices,
        )

    def from_beginning(
        self, dataset: Dataset, views: Patient[HostBatch], total: int
    ) -> Iterator[Batch]:
        """Make whole batches from the beginning of the training data.

        Data and noise are the same however the run went so far and on any number of processes.

        Args:
            dataset: The training data.
            views: The same data set, augmented.
            total: Images in a batch.

        Yields:
            Batches of `total` images, without end.
        """
        whole = BatchShard(total)
        for number, visits in enumerate(batch_visits(dataset, self._settings.seed, whole, 0)):
            yield self.make(views[visits], FIRST_FINISH - number, whole)
