"""`ssdnet` and `python -m ssdnet_jax`: the process around `main`."""

from ssdnet_jax.commands import run_process
from ssdnet_jax.main import main


def console() -> None:
    """Entry point of the `ssdnet` command; exits with its status."""
    run_process(main, "ssdnet", "finished images")


if __name__ == "__main__":
    console()
