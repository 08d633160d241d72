import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { storableJson } from "../../src/core/json.ts";

const enough = 1_000_000;
const refused = (code: string): unknown => expect.objectContaining({ name: "MillraceError", code });

describe("an input that can be stored", () => {
  test.each([
    [undefined, "null"],
    [null, "null"],
    [0, "0"],
    [Number.NaN, "null"],
    ["", '""'],
    [[], "[]"],
    [{ a: undefined }, "{}"],
    [new Date(0), '"1970-01-01T00:00:00.000Z"'],
    [{ toJSON: () => "mine" }, '"mine"'],
    ["🐎", '"🐎"'],
    ["\u0001\u001f", '"\\u0001\\u001f"'],
  ])("%j becomes %s", (input, text) => {
    expect(storableJson(input, enough)).toBe(text);
  });

  test("keeps backslashes that only look like a NUL or half a surrogate pair", () => {
    for (const text of ["\\u0000", "\\\\u0000", "\\ud800", "x\\\\ud800", "\\\\\\\\u0000\\"])
      expect(JSON.parse(storableJson({ text }, enough))).toEqual({ text });
  });

  test("is read back as it was, whatever JSON it is", () => {
    const fine = fc.jsonValue({ stringUnit: "grapheme" }).filter((value) => !JSON.stringify(value).includes("\\u0000"));
    fc.assert(
      fc.property(fine, (value) => {
        expect(JSON.parse(storableJson(value, enough))).toEqual(JSON.parse(JSON.stringify(value)));
      }),
    );
  });
});

describe("an input that cannot be stored is refused as INPUT_NOT_STORABLE", () => {
  const cyclic: Record<string, unknown> = { name: "loop" };
  cyclic["self"] = cyclic;
  test.each([
    ["a function", () => 1],
    ["a symbol", Symbol("s")],
    ["a bigint", 10n],
    ["a bigint deep inside", { a: [{ b: 1n }] }],
    ["a cycle", cyclic],
    ["a NUL character", "a\0b"],
    ["a NUL in a key", { "a\0b": 1 }],
    ["a NUL behind an escaped backslash", "\\\0"],
    ["the first half of a surrogate pair", "\ud83d"],
    ["the second half of one", "x\udc0e"],
    ["half of one behind an escaped backslash", "\\\\\ud83d"],
    ["half of one in a key", { "\udbff": 1 }],
    ["two halves in the wrong order", "\udc0e\ud83d"],
    ["a toJSON that gives nothing", { toJSON: () => undefined }],
    [
      "a toJSON that throws an error",
      {
        toJSON: () => {
          throw new Error("no");
        },
      },
    ],
    [
      "a toJSON that throws something else",
      {
        toJSON: () => {
          throw null;
        },
      },
    ],
  ])("%s", (_, input) => {
    expect(() => storableJson(input, enough)).toThrow(refused("INPUT_NOT_STORABLE"));
  });

  test("any text with a NUL or half a surrogate pair in it, wherever it stands among backslashes", () => {
    const part = fc.constantFrom("\\", "u0000", "ud800", "a", '"', "\n", "🐎");
    const bad = fc.constantFrom("\0", "\ud800", "\udfff");
    fc.assert(
      fc.property(fc.array(part), bad, fc.array(part), (before, half, after) => {
        const text = before.join("") + half + after.join("");
        expect(() => storableJson(text, enough)).toThrow(refused("INPUT_NOT_STORABLE"));
        expect(() => storableJson(before.join("") + after.join(""), enough)).not.toThrow();
      }),
    );
  });
});

describe("the size limit", () => {
  test.each([
    ["ASCII", "x".repeat(98), 100],
    ["three bytes a character", "語".repeat(32), 98],
    ["four bytes a character", "🐎".repeat(24), 98],
    ["escapes", "\n".repeat(49), 100],
  ])("counts bytes of UTF-8: %s", (_, text, bytes) => {
    expect(Buffer.byteLength(JSON.stringify(text))).toBe(bytes);
    expect(storableJson(text, bytes)).toBe(JSON.stringify(text));
    expect(() => storableJson(text, bytes - 1)).toThrow(
      expect.objectContaining({
        code: "PAYLOAD_TOO_LARGE",
        message: `The input is ${bytes} bytes of JSON; the limit is ${bytes - 1}.`,
      }),
    );
  });

  test("is exact for any text", () => {
    fc.assert(
      fc.property(
        fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0")),
        (text) => {
          const bytes = Buffer.byteLength(JSON.stringify(text));
          expect(() => storableJson(text, bytes)).not.toThrow();
          expect(() => storableJson(text, bytes - 1)).toThrow(refused("PAYLOAD_TOO_LARGE"));
        },
      ),
    );
  });
});
