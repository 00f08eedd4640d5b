"""Cases: the bodies of HTTP requests, from right ones to noise, drawn by a seed.

Separate from the runners, so that the same body that fell in process can be sent over HTTP.
Source: the request section of the RPC reference, and what JSON parsers disagree about.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from tests.fuzz import values
from tests.fuzz.requests import Params, Requests

BODY_BYTES_MAX = 1 << 20
BATCH_COUNT_MAX = 1_000
ID_MAX = 2**63 - 1


class Case(msgspec.Struct, frozen=True):
    """One body.  kind: what was done to it.

    ids: what its replies must echo, in order, when that is known: one for a single request, and
    for a batch (batch is true) one each.
    """

    kind: str
    body: bytes
    ids: tuple[int, ...] | None = None
    batch: bool = False


class Cases:
    """Draws cases.  The same seed, told of the same orders, draws the same."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)
        self.requests = Requests(self.random)
        self._id = 0
        self._draws: list[tuple[Callable[[], Case], float]] = [
            (self._right, 24),
            (self._params, 46),
            (self._envelope, 10),
            (self._bytes, 12),
            (self._batch, 5),
            (self._nested, 0.5),
            (self._large, 0.03),
        ]
        self._drawing = [draw for draw, _ in self._draws]
        self._weights = [weight for _, weight in self._draws]

    def draw(self) -> Case:
        """The next case."""
        return self.random.choices(self._drawing, self._weights)[0]()

    # Requests.

    def _new_id(self) -> int:
        self._id += 1
        if self.random.random() < 0.02:
            return self.random.choice((0, -1, ID_MAX, -ID_MAX - 1, 2**53))
        return self._id

    def _request(self, mutated: bool) -> tuple[int, str]:
        number, method = self._new_id(), self.requests.method()
        params = self.requests.params(method)
        if mutated:
            params = self._mutated(params)
        return number, f'{{"id":{number},"method":"{method}","params":[{",".join(params)}]}}'

    def _right(self) -> Case:
        number, text = self._request(mutated=False)
        return Case("right", _bytes_of(text), (number,))

    def _params(self) -> Case:
        _, text = self._request(mutated=True)
        return Case("params", _bytes_of(text))

    def _mutated(self, params: Params) -> Params:
        random, params = self.random, [*params]
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            place = random.randrange(len(params) + 1)
            change = random.random()
            if change < 0.08 or place == len(params):
                params.insert(place, values.odd(random))
            elif change < 0.16:
                del params[place]
            elif change < 0.22:
                params = params[:place]
            elif change < 0.28:
                other = random.randrange(len(params))
                params[place], params[other] = params[other], params[place]
            elif change < 0.34:
                params[place] = f"[{params[place]}]"
            elif change < 0.42:
                params[place] = self._retyped(params[place])
            elif change < 0.6 and params[place].startswith('"'):
                params[place] = self._odd_string()
            elif change < 0.75 and params[place][:1].isdigit():
                params[place] = random.choice(values.INTEGERS + values.NO_INTEGERS)
            elif change < 0.85 and params[place].startswith("{"):
                params[place] = random.choice(values.DETAILS)
            else:
                params[place] = values.odd(random)
        return params

    def _odd_string(self) -> str:
        kind = self.random.random()
        if kind < 0.4:
            return values.decimal(self.random)
        if kind < 0.6:
            return values.text(self.random.choice(values.NO_DECIMALS), self.random)
        return values.odd_text(self.random)

    def _retyped(self, param: str) -> str:
        """A number as text, and text as a number or whatever it reads as then."""
        bare = param.strip('"')
        return bare if bare != param else f'"{param}"'

    # Envelopes.

    def _envelope(self) -> Case:
        random = self.random
        number, method = self._new_id(), self.requests.method()
        fields = {
            "id": str(number),
            "method": f'"{method}"',
            "params": f"[{','.join(self.requests.params(method))}]",
        }
        pairs = list(fields.items())
        random.shuffle(pairs)
        change, place = random.random(), random.randrange(3)
        name, value = pairs[place]
        if change < 0.15:
            pairs.append((name, random.choice((value, values.odd(random)))))
        elif change < 0.25:
            pairs.append((random.choice(("jsonrpc", "ID", "", "Method")), values.odd(random)))
        elif change < 0.35:
            del pairs[place]
        elif change < 0.45:
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
            pairs[place] = (random.choice((escaped, name.upper(), name + "\\u0000")), value)
        elif change < 0.55:
            params = fields["params"]
            wrapped = (f'{{"0":{params}}}', f"[{params}]", f'"{params[1:-1]}', "null")
            pairs = [*pairs[:0], ("id", str(number)), ("method", fields["method"])]
            pairs.append(("params", random.choice(wrapped)))
        elif change < 0.7:
            names = ("", "order", "order.", "ORDER.PUT_LIMIT", "order.put_limit ", "__init__")
            odd = (f'"{random.choice(names)}"', values.odd(random))
            pairs = [("id", str(number)), ("method", random.choice(odd)), ("params", "[]")]
        else:
            pairs[place] = (name, values.odd(random))
        inner = ",".join(f'"{key}":{given}' for key, given in pairs)
        return Case("envelope", _bytes_of(f"{{{inner}}}"))

    def _batch(self) -> Case:
        random = self.random
        count = random.choice((1, 2, 2, 3, 5, 8))
        if random.random() < 0.01:
            count = random.choice((50, 200))
        requests = [self._request(mutated=random.random() < 0.4) for _ in range(count)]
        items = [text for _, text in requests]
        shape = random.random()
        if shape < 0.2:
            items.insert(random.randrange(count + 1), values.odd(random))
        elif shape < 0.25:
            return Case("batch", _bytes_of(f"[[{','.join(items)}]]"))
        elif shape < 0.28:
            return Case("batch", b"[]")
        elif shape < 0.6:
            pairs = [self._request(mutated=False) for _ in range(count)]
            body = _bytes_of(f"[{','.join(text for _, text in pairs)}]")
            return Case("batch", body, tuple(number for number, _ in pairs), batch=True)
        return Case("batch", _bytes_of(f"[{','.join(items)}]"))

    # Bytes.

    def _bytes(self) -> Case:
        random = self.random
        body = bytearray(_bytes_of(self._request(mutated=random.random() < 0.2)[1]))
        change, place = random.random(), random.randrange(len(body))
        if change < 0.25:
            for _ in range(random.choice((1, 1, 2, 8))):
                body[random.randrange(len(body))] ^= 1 << random.randrange(8)
        elif change < 0.45:
            del body[place:]
        elif change < 0.55:
            body[place:place] = random.randbytes(random.choice((1, 2, 4)))
        elif change < 0.65:
            del body[place : place + random.choice((1, 2, 9))]
        elif change < 0.75:
            body += random.choice(
                (b"x", b"{}", b",", b"\x00", b"]", b"//", b"\xff", b" \n\t", bytes(body))
            )
        elif change < 0.82:
            encoding = random.choice(("utf-16", "utf-16-be", "utf-32", "utf-7", "utf-8-sig"))
            body = bytearray(body.decode("utf-8", "replace").encode(encoding))
        elif change < 0.9:
            marks = (b"/*x*/", b"//x\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80", b"\xe9")
            body[place:place] = random.choice((*marks, b"\xf4\x90\x80\x80", b"\x00", b"\x80", b"'"))
        elif change < 0.96:
            body = bytearray(body.replace(b",", b" " * random.choice((1, 50)) + b"\n,\t"))
        else:
            body = bytearray(random.randbytes(random.choice((0, 1, 7, 100))))
        return Case("bytes", bytes(body))

    def _nested(self) -> Case:
        random = self.random
        depth = random.choice((10, 30, 100, 500, 1_000, 1_000, 3_000, 100_000))
        opened, closed = random.choice((("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")))
        inside = opened * depth + random.choice(("", "1" if opened != "[" else ""))
        inside += closed * random.choice((depth, depth, depth - 1, 0))
        method = random.choice(("balance.update", "keys.add", "market.list", "x"))
        forms = (inside, f'{{"id":1,"method":"{method}","params":[{inside}]}}')
        whole = f'{{"id":1,"method":"{method}","params":[],"more":{inside}}}'
        user = '1,"BTC","deposit",1,"1"'
        update = f'{{"id":1,"method":"balance.update","params":[{user},{inside}]}}'
        return Case("nested", _bytes_of(random.choice((*forms, whole, update))))

    def _large(self) -> Case:
        """As large as a body may be, with as much of one thing in it as there is room for."""
        random = self.random
        piece = random.choice(
            (
                "1,",
                "[],",
                "{},",
                '{"a":1},',
                '"",',
                "null,",
                "1.25e3,",
                "9" * 4299 + ",",
                '"\\u0041",',
            )
        )
        room = (BODY_BYTES_MAX - 200) // len(piece)
        many = piece * room + "1"
        asked = '"id":1,"method":"asset.summary","params"'
        forms = [
            f"[{many}]",
            f"{{{asked}:[{many}]}}",
            f'{{{asked}:[],"more":[{many}]}}',
            f'{{{asked}:["{"x" * (BODY_BYTES_MAX - 200)}"]}}',
            f'{{"id":1,"method":"{"é" * (BODY_BYTES_MAX // 2 - 100)}","params":[]}}',
            f"{{{asked}:[{' ' * (BODY_BYTES_MAX - 200)}]}}",
            f"{{{','.join(f'{chr(34)}k{n}{chr(34)}:1' for n in range(60_000))}}}",
        ]
        if random.random() < 0.4:
            _, one = self._request(mutated=False)
            count = random.choice((BATCH_COUNT_MAX, BATCH_COUNT_MAX + 1))
            forms = [f"[{','.join([one] * count)}]", f"[{'1,' * (count - 1)}1]"]
            return Case("thousand", _bytes_of(random.choice(forms)))
        return Case("large", _bytes_of(random.choice(forms)))


def _bytes_of(text: str) -> bytes:
    """UTF-8, and what half a surrogate pair would be in it."""
    return text.encode("utf-8", "surrogatepass")
