import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { eventTypes } from "../../src/events/types.ts";

test("docs/reference/events.md has every type with its fields, and no other", () => {
  const page = readFileSync(join(import.meta.dirname, "../../docs/reference/events.md"), "utf8");
  const rows = [...page.matchAll(/^\| `([a-z_]+\.[a-z_]+)` \| ([^|]*) \|/gm)].map(([, type, fields = ""]) => [
    type,
    [...fields.matchAll(/`(\w+)`/g)].map(([, field]) => field),
  ]);
  expect(Object.fromEntries(rows)).toEqual(
    Object.fromEntries(Object.entries(eventTypes).map(([type, { fields }]) => [type, [...fields]])),
  );
});
