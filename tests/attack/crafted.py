"""Bodies that are valid in their coding and made to take long to decode. All bytes are made here; only
honest brotli and zstd need the packages `brotli` and `zstandard` from PyPI."""

import gzip
import struct
import zlib


class Bits:
    """Bits in the order in which deflate, brotli and zstd pack them: the lowest first."""

    def __init__(self) -> None:
        self._value = self._count = 0
        self._bytes = bytearray()

    def put(self, value: int, count: int) -> None:
        """Appends the low `count` bits of `value`."""
        self._value |= value << self._count
        self._count += count
        while self._count >= 8:
            self._bytes.append(self._value & 255)
            self._value >>= 8
            self._count -= 8

    def prefix(self, code: int, count: int) -> None:
        """Appends a prefix code, of which the highest bit comes first."""
        for at in reversed(range(count)):
            self.put(code >> at & 1, 1)

    def done(self) -> bytes:
        """All bytes, the last one filled up with zeros."""
        self.put(0, -self._count % 8)
        return bytes(self._bytes)

    def backwards(self) -> bytes:
        """The same as zstd ends a stream that is read from its end: behind a bit that is one."""
        self.put(1, 1)
        return self.done()


def _canonical(lengths: list[int]) -> dict[int, tuple[int, int]]:
    codes, code = {}, 0
    for length in range(1, 16):
        for symbol, its_length in enumerate(lengths):
            if its_length == length:
                codes[symbol] = (code, length)
                code += 1
        code <<= 1
    return codes


def brotli_codes(size: int, count: int = 256) -> bytes:
    """Brotli of about `size` bytes: meta-blocks of one byte, each with as many prefix codes as may be."""
    bits = Bits()
    bits.put(0xF, 4)  # A window of 16 MiB.

    def number_of_codes() -> None:
        bits.put(1, 1)
        bits.put(7, 3)
        bits.put(count - 129, 7)

    def context_map() -> None:
        number_of_codes()
        bits.put(0, 1)
        bits.put(1, 2)
        bits.put(0, 2)
        bits.put(0, (count - 1).bit_length())
        bits.put(0, 1)

    while len(bits._bytes) < size:
        bits.put(0, 1)  # Not the last one,
        bits.put(0, 2 + 16)  # of one byte,
        bits.put(0, 1)  # compressed.
        bits.put(0, 3)
        bits.put(0, 2 + 4)
        bits.put(0, 2)
        context_map()
        context_map()
        for _ in range(count):
            bits.put(1, 2)
            bits.put(0, 2)
            bits.put(ord("a"), 8)
        bits.put(1, 2)
        bits.put(0, 2)
        bits.put(8, 10)
        for _ in range(count):
            bits.put(1, 2)
            bits.put(0, 2)
            bits.put(0, 6)
    bits.put(3, 2)
    return bits.done()


def _deflate_blocks(size: int) -> bytes:
    """Deflate blocks of nothing, each with the deepest codes that there are."""
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
    literals = [at + 2 for at in range(14)] + [15] + [0] * 241 + [1]
    distances = [at + 1 for at in range(14)] + [15, 15]
    items, lengths, at = [], literals + distances, 0
    while at < len(lengths):
        end = at
        while end < len(lengths) and lengths[end] == 0 and end - at < 138:
            end += 1
        if end - at >= 11:
            items.append((18, end - at - 11, 7))
            at = end
        else:
            items.append((lengths[at], 0, 0))
            at += 1
    used = sorted({symbol for symbol, _, _ in items})
    width = (len(used) - 1).bit_length()
    short = (1 << width) - len(used)
    code_lengths = [0] * 19
    for place, symbol in enumerate(used):
        code_lengths[symbol] = width - 1 if place < short else width
    codes = _canonical(code_lengths)
    code_count = max(place for place in range(19) if code_lengths[order[place]]) + 1
    end_of_block = _canonical(literals)[256]
    bits = Bits()
    while len(bits._bytes) < size:
        bits.put(0, 1)
        bits.put(2, 2)
        bits.put(len(literals) - 257, 5)
        bits.put(len(distances) - 1, 5)
        bits.put(code_count - 4, 4)
        for place in range(code_count):
            bits.put(code_lengths[order[place]], 3)
        for symbol, extra, extra_bits in items:
            bits.prefix(*codes[symbol])
            bits.put(extra, extra_bits)
        bits.prefix(*end_of_block)
    bits.put(1, 1)
    bits.put(1, 2)
    bits.put(0, 7)
    return bits.done()


def deflate_tables(size: int) -> bytes:
    """A zlib stream of about `size` bytes that stands for nothing."""
    return b"\x78\x9c" + _deflate_blocks(size) + struct.pack(">I", zlib.adler32(b""))


def gzip_tables(size: int) -> bytes:
    """The same as gzip."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + _deflate_blocks(size) + bytes(8)


def gzip_members(size: int) -> bytes:
    """Gzip of about `size` bytes: members that are empty."""
    member = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0" + bytes(8)
    return member * (size // len(member))


def _normalized(counts: list[int], accuracy: int) -> bytes:
    """The description of an FSE table (RFC 8878 section 4.1.1)."""
    bits, left = Bits(), (1 << accuracy) + 1
    bits.put(accuracy - 5, 4)
    for count in counts:
        value, width = count + 1, left.bit_length()
        spare = (1 << width) - 1 - left
        threshold = 1 << width - 1
        if value < spare:
            bits.put(value, width - 1)
        else:
            bits.put(value if value < threshold else value + spare, width)
        left -= abs(count)
    return bits.done()


def zstd_tables(size: int) -> bytes:
    """Zstd of about `size` bytes: blocks of a few bytes, each with the largest tables of three kinds."""
    tables = _normalized([1, 511], 9) + _normalized([255, 1], 8) + _normalized([511, 1], 9)
    sequence = Bits()
    # A state of each table: a match of three bytes, at the last offset, behind one literal.
    sequence.put(0, 9 + 8)
    sequence.put(5, 9)
    payload = b"\x08a" + b"\x01" + bytes([0b10101000]) + tables + sequence.backwards()
    block = struct.pack("<I", len(payload) << 3 | 2 << 1)[:3] + payload
    end = b"\x01\0\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * (size // len(block)) + end


def zstd_empty_frames(size: int) -> bytes:
    """Zstd of about `size` bytes: frames that are empty."""
    frame = b"\x28\xb5\x2f\xfd\x00\x58\x01\0\0"
    return frame * (size // len(frame))


def bomb(coding: str, mebibytes: int) -> bytes:
    """So many mebibytes of zeros."""
    zeros = bytes(mebibytes << 20)
    if coding == "gzip":
        return gzip.compress(zeros, 9)
    if coding == "deflate":
        return zlib.compress(zeros, 9)
    if coding == "zstd":
        # A block of one byte that is repeated (RFC 8878 section 3.1.1.2.2), as often as needed.
        block = struct.pack("<I", 128 * 1024 << 3 | 1 << 1)[:3] + b"\0"
        return b"\x28\xb5\x2f\xfd\x00\x58" + block * (mebibytes * 8) + b"\x01\0\0"
    return package("brotli").compress(zeros, quality=9, lgwin=24)


def package(name: str):
    """A package that is not part of Python."""
    try:
        return __import__(name)
    except ImportError:
        raise SystemExit(f"this needs the Python package {name}: python3 -m pip install {name}") from None
