"""The usual ways, written as they are usually written: fair, short, and tested against ours."""
