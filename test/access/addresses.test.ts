/** Sets of addresses. */
import { expect, test } from "vitest";
import { readAddresses } from "../../src/access/addresses.ts";

test.each([
  ["10.0.0.0/8, 192.0.2.7", ["10.1.2.3", "192.0.2.7", "::ffff:10.1.2.3"], ["11.0.0.1", "192.0.2.8", "::1"]],
  ['["2001:db8::/32", "::1"]', ["2001:db8::5", "::1", "2001:db8::5%eth0"], ["2001:db9::1", "127.0.0.1"]],
  ["0.0.0.0/0", ["203.0.113.9"], ["2001:db8::1"]],
])("%s", (text, inside, outside) => {
  const found = readAddresses(text);
  expect(inside.filter((address) => found?.has(address))).toEqual(inside);
  expect(outside.filter((address) => found?.has(address))).toEqual([]);
  expect(found?.has(undefined)).toBe(false);
});

test.each(["localhost", "10.0.0.0/33", "10.0.0", "::1/129", "", "10.0.0.1,", '["10.0.0.1", 7]', "[10.0.0.1]", "*"])(
  "%j is none",
  (text) => {
    expect(readAddresses(text)).toBeUndefined();
  },
);
