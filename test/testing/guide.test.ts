/** docs/guides/testing.md: its programs are those of examples/testing, and those are run here. */
import { readFileSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { expect, test } from "vitest";
import "../../examples/testing/charge.test.ts";
import "../../examples/testing/polite.test.ts";
import "../../examples/testing/report.test.ts";
import "../../examples/testing/send-mail.test.ts";
import "../../examples/testing/ship.test.ts";
import "../../examples/testing/sign-up.test.ts";
import "../../examples/testing/total.test.ts";

const root = resolve(import.meta.dirname, "../..");
const read = (file: string): string => readFileSync(resolve(root, file), "utf8");

test("the guide prints every program of examples/testing, whole, and no other; every test among them is run here", () => {
  const printed = [...read("docs/guides/testing.md").matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code]) => code);
  const files = readdirSync(resolve(root, "examples/testing"));
  expect(printed.toSorted()).toEqual(files.map((file) => read(`examples/testing/${file}`)).toSorted());
  const here = read("test/testing/guide.test.ts");
  for (const file of files.filter((file) => file.endsWith(".test.ts")))
    expect(here).toContain(`import "../../examples/testing/${file}";`);
});
