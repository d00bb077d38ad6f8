"""`python -m ssdnet_jax`, which is the `ssdnet` command."""

from ssdnet_jax.cli.ssdnet import console

if __name__ == "__main__":
    console()
