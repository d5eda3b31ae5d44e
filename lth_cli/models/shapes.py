"""What an architecture asks of its inputs, and the one message when a data set gives something else."""

from __future__ import annotations

from lth_cli.config.errors import ConfigError


def image_shape(
    input_shape: tuple[int, ...], *, model: str, smallest: int = 1, channels: int | None = None
) -> tuple[int, int, int]:
    """Read an input shape as an image.

    Args:
        input_shape: shape of one example, without the batch dimension.
        model: name of the architecture, for the message.
        smallest: least height and width that survives the architecture's pooling and strides.
        channels: number of channels the architecture is bound to; None when it takes any.

    Returns:
        Channels, height and width.

    Raises:
        ConfigError: when the inputs are not images, are too small, or have another number of channels.
    """
    fits = (
        len(input_shape) == 3
        and min(input_shape[1:]) >= smallest
        and (channels is None or input_shape[0] == channels)
    )
    if not fits:
        wanted = f"({channels or 'channels'}, height, width)"
        size = f" of at least {smallest} x {smallest} pixels" if smallest > 1 else ""
        raise ConfigError(
            (
                "model",
                f"{model} takes images {wanted}{size}; the data set gives inputs of shape {input_shape}",
            )
        )
    depth, height, width = input_shape
    return depth, height, width
