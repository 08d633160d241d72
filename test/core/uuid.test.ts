import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isUuid, uuidv7 } from "../../src/core/uuid.ts";

// The generator remembers the latest time of the process, so each test starts later than all before it.
let clock = Date.UTC(2030, 0, 1);
const later = (): number => (clock += 86_400_000);

const timeOf = (id: string): number => Number.parseInt(id.replace("-", "").slice(0, 12), 16);

describe("a uuid of version 7", () => {
  test("has version 7, the variant of RFC 9562, and the time it was made in front", () => {
    fc.assert(
      fc.property(fc.nat(1_000), (step) => {
        const now = (clock += step + 1);
        const id = uuidv7(now);
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
        expect(timeOf(id)).toBe(now);
        expect(isUuid(id)).toBe(true);
      }),
    );
  });

  test("is greater than every one made before it, also when the clock stands still or steps back", () => {
    const start = later();
    let before = uuidv7(start);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -3_600_000, max: 5 }), { minLength: 1, maxLength: 200 }), (steps) => {
        let now = clock;
        for (const step of steps) {
          now += step;
          const id = uuidv7(now);
          expect(id > before).toBe(true);
          before = id;
        }
        clock = Math.max(clock, now);
      }),
    );
    later();
  });

  test("borrows from the next millisecond when 4 096 in one are not enough, and stays in order and unique", () => {
    const now = later();
    const ids = Array.from({ length: 10_000 }, () => uuidv7(now));
    expect(ids).toEqual(ids.toSorted());
    expect(new Set(ids).size).toBe(10_000);
    expect(timeOf(ids[4_095] ?? "")).toBe(now);
    expect(timeOf(ids[4_096] ?? "")).toBe(now + 1);
    expect(timeOf(ids[9_999] ?? "")).toBe(now + 2);
  });

  test("goes on from the latest time when the clock steps back by a year", () => {
    const now = later();
    const before = uuidv7(now);
    const after = uuidv7(now - 365 * 86_400_000);
    expect(after > before).toBe(true);
    expect(timeOf(after)).toBe(now);
  });

  test("takes a clock that tells fractions of milliseconds", () => {
    const now = later();
    const ids = [uuidv7(now + 0.1), uuidv7(now + 0.7), uuidv7(now + 1.2)];
    expect(ids.filter((id) => !isUuid(id))).toEqual([]);
    expect(ids).toEqual(ids.toSorted());
  });

  test("ends in 62 random bits: a hundred thousand of one millisecond have no two alike and use every hex digit everywhere", () => {
    const now = later();
    const tails = Array.from({ length: 100_000 }, () => uuidv7(now).slice(19).replace("-", ""));
    expect(new Set(tails).size).toBe(100_000);
    for (let at = 1; at < 16; at += 1) expect(new Set(tails.map((tail) => tail[at])).size).toBe(16);
  });
});

test.each([
  "",
  "x",
  "018f",
  "018f0000-0000-7000-8000-00000000000",
  "018f0000-0000-7000-8000-00000000000g",
  " 018f0000-0000-7000-8000-000000000000",
])("%j is no uuid", (text) => {
  expect(isUuid(text)).toBe(false);
});

test("a uuid may be written in capitals", () => {
  expect(isUuid("018F0000-ABCD-7000-8000-000000000000")).toBe(true);
});
