"""Values to JSON and back by type hint: the `json/plain` encoding.

`encoding` writes. `decoding` reads: it finds the decoder of a hint among those of `scalars`,
`choices`, `containers`, `unions` and `classes`. `round_trip` holds what came back against what went
in. `kinds` tells what a hint is, `fields` what the fields of a class are, `mismatch` how a decoder
says no.

Written by hand because no library keeps the promises of docs/values.md: of 65 values msgspec gives
back 52 (ten times as fast) and pydantic 51, and a hook for the others would need the decoders of
containers, unions and classes all the same. docs/benchmarks.md has the comparison.
"""
