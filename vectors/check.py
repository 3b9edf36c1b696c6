#!/usr/bin/env python3
"""Recomputes the known values of appendix-a.json with nothing but Python's standard library.

Independent of the Rust code: both were written from the scheme. Sealing is skipped, since the
standard library has no X25519; `body` is taken as given.

    check.py [file]     exit status 0 if every value holds, 1 with a message if one does not
"""

import hashlib
import hmac
import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("appendix-a.json")


def sha256(data):
    return hashlib.sha256(data).digest()


def u16(number):
    return number.to_bytes(2, "big")


def u32(number):
    return number.to_bytes(4, "big")


def hkdf_32(salt, key_material, info):
    """The first 32 bytes of HKDF-SHA256 (RFC 5869)."""
    key = hmac.digest(salt, key_material, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")


def cbor(value):
    """Deterministic CBOR of arrays, byte strings, unsigned numbers and null."""
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return cbor_head(0, value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    return cbor_head(4, len(value)) + b"".join(cbor(item) for item in value)


def cbor_head(major, number):
    if number < 24:
        return bytes([major << 5 | number])
    size = next(size for size in (1, 2, 4, 8) if number < 256**size)
    return bytes([major << 5 | 24 + size.bit_length() - 1]) + number.to_bytes(size, "big")


def step(salt, index, link):
    """From `v_i` to `v_(i-1)`."""
    return sha256(b"\x02" + salt + u32(index) + link)


def chain_leaf(salt, index, link):
    return sha256(b"\x00" + salt + u32(index) + link)


def node(left, right):
    return sha256(b"\x01" + left + right)


def split(count):
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def tree_root(leaves):
    """RFC 9162 s2.1.1."""
    if len(leaves) == 1:
        return leaves[0]
    half = split(len(leaves))
    return node(tree_root(leaves[:half]), tree_root(leaves[half:]))


def tree_path(leaves, position):
    """RFC 9162 s2.1.3.1."""
    if len(leaves) == 1:
        return []
    half = split(len(leaves))
    if position < half:
        return tree_path(leaves[:half], position) + [tree_root(leaves[half:])]
    return tree_path(leaves[half:], position - half) + [tree_root(leaves[:half])]


def path_holds(leaf, position, size, path, root):
    """RFC 9162 s2.1.3.2."""
    if position >= size:
        return False
    last, digest = size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            digest = node(sibling, digest)
            while position and not position & 1:
                position, last = position >> 1, last >> 1
        else:
            digest = node(digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest == root


def altered(data):
    return bytes([data[0] ^ 1]) + data[1:]


class Checks:
    """Counts what held; leaves the program at the first thing that does not."""

    def __init__(self):
        self.count = 0

    def same(self, name, expected, found):
        if expected != found:
            sys.exit(f"{name}: expected {show(expected)}, found {show(found)}")
        self.count += 1

    def holds(self, name, condition):
        self.same(name, True, condition)


def show(value):
    if isinstance(value, list):
        return " ".join(show(item) for item in value) or "nothing"
    return value.hex() if isinstance(value, bytes) else str(value)


def check(known):
    def value(name):
        return bytes.fromhex(known[name])

    def hashed(name):
        return sha256(known["hashed_texts"][name].encode())

    checks = Checks()
    salt, slots = value("salt"), known["slots"]
    net = hashed("net")[:16]
    checks.same("net", value("net"), net)
    names = u16(known["owner"]) + u16(known["sdi"]) + u32(known["meter"])
    checks.same("salt", salt, sha256(b"\x16" + names + value("salt_nonce"))[:16])
    others = u16(known["owner"] + 1) + names[2:]
    stranger = sha256(b"\x16" + others + value("salt_nonce"))[:16]
    checks.holds("salt: that of another owner differs", stranger != salt)

    info = b"BKSS-v1 chain" + net + u32(known["chain_number"])
    links = {slots: hkdf_32(salt, hashed("meter_entropy") + hashed("sdi_entropy"), info)}
    for index in range(slots, 0, -1):
        links[index - 1] = step(salt, index, links[index])
    for index, link in known["v"].items():
        checks.same(f"v_{index}", bytes.fromhex(link), links[int(index)])

    leaves = [chain_leaf(salt, index, links[index]) for index in range(1, slots + 1)]
    root = tree_root(leaves)
    for index, leaf in known["leaf"].items():
        checks.same(f"leaf_{index}", bytes.fromhex(leaf), leaves[int(index) - 1])
    checks.same("r", value("r"), root)

    for index, path in known["C"].items():
        position, path = int(index) - 1, [bytes.fromhex(sibling) for sibling in path]
        leaf = leaves[position]
        checks.same(f"C_{index}", path, tree_path(leaves, position))
        checks.holds(f"C_{index} leads to r", path_holds(leaf, position, slots, path, root))
        for what, refused in [
            ("an altered link", (chain_leaf(salt, int(index), altered(links[int(index)])), path)),
            ("an altered path", (leaf, [altered(path[0]), *path[1:]])),
            ("a shorter path", (leaf, path[:-1])),
            ("a longer path", (leaf, [*path, path[-1]])),
        ]:
            reached = path_holds(refused[0], position, slots, refused[1], root)
            checks.holds(f"C_{index}: {what} is refused", not reached)
        reached = path_holds(leaf, position - 1, slots, path, root)
        checks.holds(f"C_{index}: another position is refused", not reached)

    root_message = cbor(
        [2, known["meter"], known["owner"], known["sdi"], value("salt_nonce"), links[0], root]
        + [known[name] for name in ("first_slot", "slot_s", "slots", "window_s")]
        + [sha256(b"\x07" + value("device_nonce") + known["device_serial"].encode())]
        + [sha256(b"\x0d" + hashed("rho"))]
    )
    checks.same("root_message", value("root_message"), root_message)
    mr = sha256(b"\x06" + net + root_message)
    checks.same("mr", value("mr"), mr)

    body, index = value("body"), known["index"]
    checks.same("body", cbor([known["key_id"], value("enc"), value("ct")]), body)
    p = sha256(b"\x04" + mr + u32(index) + sha256(body))
    checks.same("p", value("p"), p)
    q = sha256(b"\x03" + p + links[index])
    checks.same("q", value("q"), q)
    forged = sha256(b"\x03" + p + altered(links[index]))
    checks.holds("q: an altered link is refused", forged != value("q"))
    forged = step(salt, index, altered(links[index]))
    checks.holds("v: an altered link is refused", forged != links[index - 1])

    eight = known["tree_of_eight"]
    entries = [bytes.fromhex(entry) for entry in eight["entries"]]
    found = tree_root([sha256(b"\x00" + entry) for entry in entries])
    checks.same("tree of eight", bytes.fromhex(eight["root"]), found)
    return checks.count


if __name__ == "__main__":
    file = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    print(f"{file.name}: {check(json.loads(file.read_text()))} checks hold")
