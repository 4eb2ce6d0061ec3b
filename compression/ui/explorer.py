"""What the server holds for all visitors: read-only data and models, and one bounded store.

torch is loaded in the background after the page is up. A variant that a visitor made is found by a
key that nobody else can guess; the store drops the least recently used when it is full.
"""

import secrets
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import compression
from compression.inputs import InputError, real, whole
from compression.presets import DEFAULT_PRESET, SHIPPED
from compression.ui.recorded import packed_files, scan_file, settings_file

if TYPE_CHECKING:
    from torch import nn

    from compression.allocation_table import SettingTable
    from compression.data import ImageSet, Split
    from compression.report import Variant
    from compression.scan_records import RecordedScan
    from compression.stored import StoredModel
    from compression.ui.session import Session

STORE_CAPACITY = 64
UPLOADED = "uploaded "  # what the names of visitors' own models begin with
NAMES_CAPACITY = 1024  # of dropped variants, so that it can be said what is gone
QUIET_SECONDS = 30.0  # after the start, before models that nobody has asked for are measured
SOURCES = ("sample", "full")
# What is first offered as the size of a file, in KiB: about a twentieth of the dense model.
SUGGESTED_KIB = {"resnet9-s": 320, "resnet9": 1280, "resnet9-t2g3": 5900}
# One piece of long work at a time: two at once on two cores would each take twice as long.
WORK = {"concurrency_id": "work", "concurrency_limit": 1}


class DroppedError(InputError):
    """A variant was asked for that has made room for others, or never was there."""


class Explorer:
    """Data, shipped checkpoints and the store of variants; safe to use from several threads.

    longest_minutes: what a visitor's training may be guessed to take at most; None: no limit.
    capacity: how many variants are kept, of all visitors together. Raises InputError for a limit
    outside 1..10000, a start that is no checkpoint, and the full set where it has not been
    downloaded.
    """

    def __init__(
        self,
        start: str = SHIPPED[0],
        source: str = "sample",
        root: Path | None = None,
        longest_minutes: float | None = None,
        capacity: int = STORE_CAPACITY,
    ) -> None:
        self.root = root
        self.capacity = whole("variants", capacity, 1, 10_000)
        if longest_minutes is not None:
            longest_minutes = real("longest_minutes", longest_minutes, 1, 10_000, "minutes")
        self.longest_minutes = longest_minutes
        self.source = source if source != "auto" else "full" if self.has_full() else "sample"
        if self.source == "full" and not self.has_full():
            raise InputError(
                "source full must be downloaded first, by python -m compression download, got "
                "none where it is looked for."
            )
        if source == "auto" and root is not None and not self.has_full():
            raise InputError("data must be a folder with the full CIFAR-10, got one without it.")
        self.preset = start.partition("/")[0]  # of a shipped start
        self.packed = packed_files()
        self._files: dict[str, str | Path] = dict(self.packed)
        if start not in SHIPPED:  # called by its file's name: visitors are not to see folders
            self.preset = compression.load_stored(start).model.preset
            self._files[Path(start).name], start = start, Path(start).name
        self.start = start
        self.turn = threading.Lock()  # held by what computes for long, so that none times beside it
        self._lock = threading.RLock()
        self._measuring = threading.Lock()
        self._images: dict[tuple[str, str], ImageSet] = {}
        self._loaded: dict[str, StoredModel] = {}
        self._shipped: dict[str, Variant] = {}
        self._made: OrderedDict[str, Variant] = OrderedDict()
        self._dropped: OrderedDict[str, str] = OrderedDict()  # key -> name
        self._tables: OrderedDict[str, SettingTable] = OrderedDict()

    def has_full(self) -> bool:
        """Whether the full CIFAR-10 is there to be measured on."""
        return compression.is_cached(self.root)

    def images(self, split: "Split", source: str) -> "ImageSet":
        """A split of the sample or the full set; loaded once."""
        with self._lock:
            if (split, source) not in self._images:
                self._images[split, source] = compression.load_cifar10(split, source, self.root)
            return self._images[split, source]

    def key_of(self, name: str, source: str) -> str:
        """The key of a shipped model, or of the starting one, measured on these images."""
        return f"{source}:{name}"

    def model(self, key: str) -> "nn.Module":
        """The network behind a key, without waiting for it to be measured."""
        with self._lock:
            if key in self._made:
                return self._made[key].model
        return self._load(self._own_name(key)).model

    def suggested_kib(self, session: "Session") -> int:
        """What is first offered as the size of a visit's file."""
        return SUGGESTED_KIB[str(self.model(session.start).preset)]

    def variant(self, key: str) -> "Variant":
        """A shipped or starting model by its `key_of`, or a visitor's variant by its key."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        name = self._own_name(key)
        if key in self._shipped:  # without waiting for another that is being measured
            return self._shipped[key]
        with self._measuring:  # one at a time; whoever comes second finds it done
            if key not in self._shipped:
                short = name.removeprefix(f"{DEFAULT_PRESET}/")
                stored, source = self._load(name), key.partition(":")[0]
                images = self.images("test", source)
                self._shipped[key] = compression.variant_of(stored, images, name=short)
            return self._shipped[key]

    def find(self, key: str) -> "Variant | None":
        """The variant, or None for one that was dropped to make room."""
        try:
            return self.variant(key)
        except DroppedError:
            return None

    def was_dropped(self, key: object) -> bool:
        """Whether a visitor's variant of that key was in the store."""
        return isinstance(key, str) and key in self._dropped

    def name_of_dropped(self, key: str) -> str:
        """What a variant was called that was dropped to make room."""
        return self._dropped.get(key, "a variant of long ago")

    def is_measured(self, key: str) -> bool:
        """Whether `find` answers at once; a model out of a file is measured when it is asked for,
        and no visitor's key has a colon."""
        return ":" not in key or key in self._shipped

    def _own_name(self, key: str) -> str:
        """The name in the key of a shipped or starting model; DroppedError for any other key."""
        source, _, name = key.partition(":")
        if source in SOURCES and name in (*SHIPPED, self.start, *self.packed):
            return name
        again = "upload" if self._dropped.get(key, "").startswith(UPLOADED) else "make"
        raise DroppedError(
            "The variant must still be in the server's memory, got one that has been dropped to "
            f"make room: {again} it again."
        )

    def _load(self, name: str) -> "StoredModel":
        """A shipped or starting model out of its file; loaded once."""
        with self._lock:
            if name not in self._loaded:
                stored = compression.load_stored(self._files.get(name, name))
                if name not in (*SHIPPED, *self.packed):  # it is there to be changed
                    stored = stored.unfolded(self.images("train", "sample").images)
                self._loaded[name] = stored
            return self._loaded[name]

    def holds(self, key: object) -> bool:
        """Whether a visitor's variant of that key is in the store."""
        return isinstance(key, str) and key in self._made

    def put(self, variant: "Variant") -> str:
        """Keep a visitor's variant; returns its key."""
        key = secrets.token_urlsafe(16)
        with self._lock:
            self._made[key] = variant
            while len(self._made) > self.capacity:
                gone, variant = self._made.popitem(last=False)
                self._dropped[gone] = variant.name
            while len(self._dropped) > NAMES_CAPACITY:
                self._dropped.popitem(last=False)
        return key

    def upload(self, path: str, source: str) -> str:
        """Check and measure a visitor's checkpoint file; returns its key."""
        name = f"{UPLOADED}{Path(path).stem}"[:40]
        images = self.images("test", source)
        stored = compression.load_stored(path).unfolded(self.images("train", "sample").images)
        return self.put(compression.variant_of(stored, images, name=name))

    def recorded_scan(self, name: str) -> "RecordedScan | None":
        """The recorded scan of a shipped model; scanning the same again then takes no time."""
        path = scan_file(name)
        if path is None:
            return None
        recorded = compression.load_scan(path)
        recorded.remember()
        return recorded

    def known_table(self, key: str) -> "SettingTable | None":
        """What each setting of a model's layers costs, where that was measured before: in this
        process, or, for a shipped model, in a recorded file of these very weights."""
        with self._lock:
            if key in self._tables:
                return self._tables[key]
        path = settings_file(key.partition(":")[2])
        if path is None:
            return None
        model, recorded = self.model(key), compression.load_settings(path)
        if recorded.weights != compression.weights_digest(model):
            return None
        table = compression.setting_table(model, recorded.points)
        self.keep_table(key, table)
        return table

    def keep_table(self, key: str, table: "SettingTable") -> None:
        """Remember a model's table; the oldest makes room."""
        with self._lock:
            self._tables[key] = table
            while len(self._tables) > STORE_CAPACITY:
                self._tables.popitem(last=False)

    def warm_up(self) -> None:
        """Load torch, the data and the starting model, so that the first click need not wait; then
        measure the model, for whoever comes first, and after a while, in which the first visitor's
        own steps go first, the others that Compare shows."""
        self.images("validation", self.source)
        key = self.key_of(self.start, self.source)
        self.model(key)
        self.measure(key)
        time.sleep(QUIET_SECONDS)
        for name in (*SHIPPED, *self.packed):
            self.measure(self.key_of(name, self.source))

    def measure(self, key: str) -> None:
        """`variant`, while no other long work is computed."""
        with self.turn:
            self.variant(key)
