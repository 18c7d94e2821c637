"""Whether a progress bar is shown."""

import os


def shows_bar(progress: bool | None) -> bool:
    """Is a bar asked for, and not switched off by TQDM_DISABLE, which tqdm's notebook bar forgets?"""
    return bool(progress) and not os.environ.get("TQDM_DISABLE")
