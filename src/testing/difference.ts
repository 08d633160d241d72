/** Whether a JSON value holds what is expected, and if not, where it first does not. */
import { show } from "../core/options.ts";

/** Undefined: it does. Objects may hold more than expected, arrays may not; matchers of test runners decide for themselves. */
export function difference(actual: unknown, expected: unknown, path: string): string | undefined {
  const matcher = expected as { asymmetricMatch?: (value: unknown) => boolean } | null | undefined;
  if (typeof matcher?.asymmetricMatch === "function")
    return matcher.asymmetricMatch(actual)
      ? undefined
      : `${path} is ${show(actual)}, which does not match ${String(expected)}`;
  // As the job stores it: a Date is a text.
  const wanted = hasToJSON(expected) ? expected.toJSON() : expected;
  if (Array.isArray(wanted)) {
    if (!Array.isArray(actual)) return `${path} is ${show(actual)}, not an array`;
    if (actual.length !== wanted.length) return `${path} has ${actual.length} elements, not ${wanted.length}`;
    return first(wanted.map((value, i) => difference(actual[i], value, `${path}[${i}]`)));
  }
  if (typeof wanted === "object" && wanted !== null) {
    if (typeof actual !== "object" || actual === null || Array.isArray(actual))
      return `${path} is ${show(actual)}, not an object`;
    return first(
      Object.entries(wanted).map(([key, value]) =>
        difference((actual as Record<string, unknown>)[key], value, `${path}.${key}`),
      ),
    );
  }
  return Object.is(actual, wanted) ? undefined : `${path} is ${show(actual)}, not ${show(wanted)}`;
}

function first(found: readonly (string | undefined)[]): string | undefined {
  return found.find((one) => one !== undefined);
}

function hasToJSON(value: unknown): value is { toJSON(): unknown } {
  return typeof (value as { toJSON?: unknown } | null | undefined)?.toJSON === "function";
}
