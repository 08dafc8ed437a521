"""Small files as microscopes write them, for formats that no library here writes. Tests nothing."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import zarr

_LIF_AXES = {"X": 1, "Y": 2, "Z": 3, "T": 4, "λ": 5, "M": 10}


def write_lif(
    path: Path,
    scenes: dict[str, tuple[str, np.ndarray]],
    *,
    channels: Sequence[str] = ("Green", "Gray"),
    detectors: Sequence[str] = (),
    size_um: dict[str, float] | None = None,
) -> None:
    """Write a Leica file: scene name to axes (slowest first; C or S among them) and pixels."""
    elements, blocks = [], []
    for number, (name, (axes, pixels)) in enumerate(scenes.items()):
        strides = dict(zip(axes, pixels.strides, strict=True))
        dims = ""
        for axis, count in zip(axes, pixels.shape, strict=True):
            if axis not in "CS":
                length = (size_um or {}).get(axis, 0) * 1e-6 * (count - 1)
                dims += (
                    f'<DimensionDescription DimID="{_LIF_AXES[axis]}" NumberOfElements="{count}" '
                    f'Origin="0" Length="{length}" Unit="m" BytesInc="{strides[axis]}" BitInc="0"/>'
                )
        samples = [a for a in "CS" if a in axes]
        count = pixels.shape[axes.index(samples[0])] if samples else 1
        described = ""
        for i in range(count):
            tag = 3 - i if "S" in axes else 0  # Leica stores blue, green, red
            described += (
                f'<ChannelDescription DataType="0" ChannelTag="{tag}" Resolution="'
                f'{pixels.itemsize * 8}" NameOfMeasuredQuantity="" Min="0" Max="1" Unit="" LUTName='
                f'{quoteattr(channels[i % len(channels)])} IsLUTInverted="0" BytesInc="'
                f'{i * strides[samples[0]] if samples else 0}" BitInc="0"/>'
            )
        listed = "".join(f'<Detector Name="{d}" IsActive="1"/>' for d in detectors)
        setting = (
            f"<ATLConfocalSettingDefinition><DetectorList>{listed}</DetectorList>"
            "</ATLConfocalSettingDefinition>"
        )
        elements.append(
            f"<Element Name={quoteattr(name)}><Data><Image><ImageDescription><Channels>{described}"
            f"</Channels><Dimensions>{dims}</Dimensions></ImageDescription>{setting}</Image></Data>"
            f'<Memory Size="{pixels.nbytes}" MemoryBlockID="Block_{number}"/></Element>'
        )
        block_id = f"Block_{number}".encode("utf-16-le")
        head = struct.pack("<BQBI", 0x2A, pixels.nbytes, 0x2A, len(block_id) // 2) + block_id
        blocks.append(struct.pack("<II", 0x70, len(head)) + head + pixels.tobytes())
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Data/>'
        f'<Memory Size="0" MemoryBlockID="none"/><Children>{"".join(elements)}</Children>'
        "</Element></LMSDataContainerHeader>"
    ).encode("utf-16-le")
    head = struct.pack("<IIBI", 0x70, len(xml) + 5, 0x2A, len(xml) // 2)
    path.write_bytes(head + xml + b"".join(blocks))


def zip_zarr(folder: Path, path: Path) -> Path:
    """Write the folder of an OME-Zarr as one zip file, without compressing it (RFC-9)."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def write_zarr(
    path: Path,
    axes: str,
    pixels: np.ndarray,
    *,
    version: str = "0.5",
    unit: str | None = "micrometer",
    scale: Sequence[float] | None = None,
    channels: Sequence[str] = (),
) -> None:
    """Write an OME-Zarr image of two resolution levels, one chunk a plane."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    chunks = (1,) * (len(axes) - 2) + pixels.shape[-2:]
    for level in range(2):
        values = pixels[..., :: 2**level, :: 2**level]
        array = group.create_array(
            str(level), shape=values.shape, chunks=chunks, dtype=values.dtype
        )
        array[...] = values
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": axis, "type": kinds.get(axis, "space")} for axis in axes]
    for axis in described:
        if unit and axis["type"] == "space":
            axis["unit"] = unit
    scale = list(scale or [1.0] * len(axes))
    coarse = [*scale[:-2], scale[-2] * 2, scale[-1] * 2]
    multiscale = {
        "name": "image",
        "axes": described,
        "datasets": [
            {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": step}]}
            for i, step in enumerate((scale, coarse))
        ],
    }
    if version == "0.6":
        multiscale["coordinateSystems"] = [
            {"name": "stage", "axes": [{"name": axis} for axis in axes]},
            {"name": "physical", "axes": multiscale.pop("axes")},
        ]
        multiscale["coordinateTransformations"] = [
            {"type": "scale", "scale": [7.0] * len(axes),
             "input": {"name": "physical"}, "output": {"name": "stage"}}
        ]  # fmt: skip
        for data in multiscale["datasets"]:
            ends = {"input": {"path": data["path"]}, "output": {"name": "physical"}}
            shift = {"type": "translation", "translation": [1.0] * len(axes)}
            both = [*data["coordinateTransformations"], shift]
            data["coordinateTransformations"] = [
                {"type": "sequence", "transformations": both} | ends
            ]
    metadata: dict = {"multiscales": [multiscale]}
    if channels:
        window = {"min": 0, "max": 255, "start": 0, "end": 255}
        metadata["omero"] = {
            "channels": [{"label": c, "color": "FFFFFF", "window": window} for c in channels]
        }
    if version != "0.4":
        group.attrs["ome"] = {"version": version, **metadata}
    else:
        multiscale["version"] = "0.4"
        group.attrs.update(metadata)


def write_czi(
    path: Path,
    pixels: np.ndarray,
    *,
    channels: Sequence[str] = (),
    size_um: Sequence[float] | None = None,
) -> None:
    """Write a Zeiss file of (T, C, Z, Y, X) pixels; pixel sizes along Z, Y, X."""
    from pylibCZIrw import czi

    with czi.create_czi(str(path)) as file:
        for t, c, z in np.ndindex(pixels.shape[:3]):
            file.write(pixels[t, c, z], plane={"T": t, "C": c, "Z": z})
        scale = dict(zip(("scale_z", "scale_y", "scale_x"), size_um or (), strict=False))
        file.write_metadata(
            "document",
            channel_names=dict(enumerate(channels)),
            **{axis: size * 1e-6 for axis, size in scale.items()},
        )


def write_nd2(path: Path, pixels: np.ndarray, *, lacking: Sequence[int] = ()) -> None:
    """Write a Nikon file (as of version 2.1) of (T, Z, Y, X) pixels, without some frames."""
    times, depth, height, width = pixels.shape

    def xml(tag: str, content: dict | float | str) -> str:
        if isinstance(content, dict):
            return f"<{tag}>{''.join(xml(*one) for one in content.items())}</{tag}>"
        kind = {int: "lx_uint32", float: "double", str: "CLxStringW"}[type(content)]
        return f'<{tag} runtype="{kind}" value={quoteattr(str(content))}/>'

    plane = {"sDescription": "DIC", "pFluorescentProbe": {"m_EmissionSpectrum": {}}}
    stack = {"eType": 4, "uLoopPars": {"uiCount": depth, "dZStep": 0.5}}
    series = {"uiCount": times, "dStart": 0.0, "dPeriod": 1.0, "dDuration": 1.0}
    chunks = {
        "ImageAttributes!": {
            "uiWidth": width, "uiWidthBytes": 2 * width, "uiHeight": height, "uiComp": 1,
            "uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": times * depth,
        },
        "ImageMetadataSeq|0!": {
            "bCalibrated": 1, "dCalibration": 0.1,
            "sPicturePlanes": {"uiCount": 1, "sPlane": {"a0": plane}},
        },
        "ImageMetadata!": {"eType": 1, "uLoopPars": series, "ppNextLevelEx": {"a0": stack}},
    }  # fmt: skip
    data = {name: xml("variant", content).encode() for name, content in chunks.items()}
    frames = pixels.reshape(-1, height, width)
    data |= {
        f"ImageDataSeq|{number}!": bytes(8) + frame.tobytes()  # a time, then the pixels
        for number, frame in enumerate(frames)
        if number not in lacking
    }
    magic, places = 0x0ABECEDA, b""
    with path.open("wb") as file:
        file.write(struct.pack("<IIQ32s64s", magic, 32, 64, b"ND2 FILE SIGNATURE CHUNK NAME01!",
                               b"Ver2.1"))  # fmt: skip
        for name, content in data.items():
            places += name.encode() + struct.pack("<QQ", file.tell(), len(content))
            head = struct.pack("<IIQ", magic, 4072, len(content))
            file.write(head + name.encode().ljust(4072, b"\0") + content)
        end = b"ND2 CHUNK MAP SIGNATURE 0000001!"
        at, places = file.tell(), places + end + struct.pack("<Q", file.tell())
        file.write(struct.pack("<IIQ", magic, 32, len(places)))
        file.write(b"ND2 FILEMAP SIGNATURE NAME 0001!" + places)
        assert file.tell() > at


def write_ndtiff(path: Path, pixels: np.ndarray, *, lacking: Sequence[int] = ()) -> None:
    """Write a Micro-Manager's NDTiff of (Z, Y, X) pixels (16 bit), and its index beside it."""
    note = b'{"a": 1}\0'
    data = struct.pack("<4sI5I", b"II*\0", 0, 483729, 3, 0, 2355492, 2) + b"{}" + note
    link, index = 4, b""
    for z, plane in enumerate(pixels):
        at, (height, width) = len(data), plane.shape
        tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: at, 277: 1, 278: height,
                279: plane.nbytes}  # fmt: skip
        listed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        listed += struct.pack("<HHII", 51123, 2, len(note), 30)
        data += plane.tobytes()
        data = data[:link] + struct.pack("<I", len(data)) + data[link + 4 :]
        data += struct.pack("<H", len(tags) + 1) + listed + bytes(4)
        link = len(data) - 4
        if z not in lacking:
            for text in (f'{{"z": {z}}}'.encode(), path.name.encode()):
                index += struct.pack("<I", len(text)) + text
            index += struct.pack("<IiiiiIii", at, width, height, 1, 0, 0, 0, 0)
    path.write_bytes(data)
    path.with_name("NDTiff.index").write_bytes(index)
