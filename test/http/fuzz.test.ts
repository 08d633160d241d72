/**
 * Every operation of the document, asked with what its schemas allow, with the edges of that, and with what nobody should send. Whatever
 * it is: an answer that the document has (the caller of tests sees to that), never an error of ours, never a stack trace, and soon.
 */
import fc from "fast-check";
import { beforeAll, expect, test } from "vitest";
import { type Millrace, task } from "millrace";
import { callerOf, createApi, recorder } from "./caller.ts";
import { useDatabase } from "../support/engine.ts";

type Schema = Readonly<Record<string, unknown>>;
interface Parameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly required: boolean;
  readonly schema: Schema;
}
interface Operation {
  readonly parameters: readonly Parameter[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Schema }>> };
}

const runs = 20;
const soonMs = 10_000;

const plain = task({ name: "plain", queue: "fuzzed", run: () => undefined });
const file = useDatabase();
let mill: Millrace;
let call: ReturnType<typeof callerOf>;
let document: { paths: Record<string, Record<string, Operation>>; components: { schemas: Record<string, Schema> } };
/** Names and ids that exist. */
let existing: readonly string[];
beforeAll(async () => {
  mill = await file.open([plain]);
  const ids = await mill.enqueueMany(plain, [1, 2, 3], { delay: "1h" });
  await mill.schedules.create({ name: "hourly", task: "plain", every: "1h" });
  existing = [...ids, "fuzzed", "hourly", "1"];
  const log = recorder();
  const unlimited = { api: 0, ops: 0, enqueue: 0, stream: 0, public: 0 };
  const givenTokens = [{ token: "an-admin-of-everything", role: "admin", name: "fuzz" }] as const;
  call = callerOf(createApi(mill, { log, rateLimits: unlimited, givenTokens }));
  document = (await call("/openapi.json")).body as unknown as typeof document;
  return () => mill.close();
});

/** What breaks programs that believe what they are given. */
const hostile: readonly unknown[] = [
  null,
  "",
  " ",
  "\0",
  "\uD800",
  "a\0b",
  "é".repeat(300),
  "x".repeat(70_000),
  "'; drop table millrace.jobs; --",
  "../../etc/passwd",
  "%00",
  "${7*7}",
  "<script>alert(1)</script>",
  "infinity",
  "-infinity",
  "NaN",
  "1e999",
  "2027-01-31T25:61:00Z",
  "0000-00-00T00:00:00Z",
  "9999999-01-01T00:00:00Z",
  -1,
  0,
  0.1,
  2 ** 31,
  2 ** 53,
  -(2 ** 63),
  1e308,
  true,
  [],
  [[[[]]]],
  {},
  { __proto__: { polluted: true } },
  { constructor: { prototype: { polluted: true } } },
  Array.from({ length: 2_000 }, () => null),
];

function arbitraryOf(schema: Schema, depth = 0): fc.Arbitrary<unknown> {
  const { $ref, anyOf, oneOf, enum: words, const: only, type, format } = schema as Record<string, never>;
  if ($ref !== undefined)
    return arbitraryOf(document.components.schemas[String($ref).replace("#/components/schemas/", "")] ?? {}, depth);
  if (only !== undefined) return fc.constant(only);
  if (words !== undefined) return fc.constantFrom(...(words as unknown[]));
  const several = (anyOf ?? oneOf) as readonly Schema[] | undefined;
  if (several !== undefined) return fc.oneof(...several.map((one) => arbitraryOf(one, depth)));
  const types = [type ?? []].flat() as string[];
  if (types.length > 1) return fc.oneof(...types.map((one) => arbitraryOf({ ...schema, type: one }, depth)));
  switch (types[0] ?? "any") {
    case "null":
      return fc.constant(null);
    case "boolean":
      return fc.boolean();
    case "integer":
    case "number":
      return numbers(schema, types[0] === "integer");
    case "string":
      if (format === "uuid") return fc.oneof(fc.constantFrom(...existing), fc.uuid());
      if (format === "date-time") return fc.date({ noInvalidDate: true }).map((date) => date.toISOString());
      return fc.oneof(fc.constantFrom(...existing, "plain", "10s", "2031-01-31T08:00:00Z", "* * * * *"), fc.string());
    case "array":
      return fc.array(arbitraryOf((schema["items"] ?? {}) as Schema, depth + 1), { maxLength: 3 });
    case "object":
      return objects(schema, depth);
    default:
      return depth > 3 ? fc.constant(7) : fc.jsonValue({ maxDepth: 2 });
  }
}

function numbers({ minimum, maximum }: Schema, whole: boolean): fc.Arbitrary<unknown> {
  const least = Number(minimum ?? -1_000);
  const most = Number(maximum ?? 1_000);
  const edges = [least, least + 1, most - 1, most, least - 1, most + 1];
  return fc.oneof(
    fc.constantFrom(...edges),
    whole ? fc.integer() : fc.double({ noNaN: true, noDefaultInfinity: true }),
  );
}

function objects(schema: Schema, depth: number): fc.Arbitrary<unknown> {
  const fields = (schema["properties"] ?? {}) as Record<string, Schema>;
  const needed = (schema["required"] ?? []) as string[];
  const model = Object.fromEntries(
    Object.entries(fields).map(([name, field]) => [
      name,
      depth > 3 ? fc.constant(null) : mixed(arbitraryOf(field, depth + 1)),
    ]),
  );
  if (Object.keys(model).length === 0)
    return depth > 2
      ? fc.constant({})
      : fc.dictionary(fc.string(), arbitraryOf((schema["additionalProperties"] ?? {}) as Schema, depth + 1), {
          maxKeys: 3,
        });
  return fc.record(model, { requiredKeys: needed });
}

const mixed = (good: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 5, arbitrary: good }, { weight: 1, arbitrary: fc.constantFrom(...hostile) });

const asText = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value));

/** A path must hold it: lone surrogates cannot be sent at all. */
const inPath = (value: unknown): string =>
  encodeURIComponent(
    asText(value)
      .replaceAll(/\p{Surrogate}/gu, "?")
      .slice(0, 2_000),
  ) || "%20";

/** What would keep a test waiting for as long as it says. */
const patient: ReadonlySet<string> = new Set(["within", "wait"]);

interface Request {
  readonly path: string;
  readonly body: string | undefined;
  readonly type: string;
}

function requests(path: string, { parameters, requestBody }: Operation): fc.Arbitrary<Request> {
  const places = parameters.filter((one) => one.in === "path");
  const query = parameters.filter((one) => one.in === "query");
  const bodySchema = requestBody?.content["application/json"]?.schema;
  const bodies =
    bodySchema === undefined
      ? fc.constant(undefined)
      : fc.oneof(
          {
            weight: 8,
            arbitrary: mixed(arbitraryOf(bodySchema)).map((value) =>
              JSON.stringify(value, (key, inner: unknown) => (patient.has(key) ? 5 : inner)),
            ),
          },
          {
            weight: 1,
            arbitrary: fc.constantFrom("{", "[".repeat(20_000), "\u{FEFF}{}", "null", "7", '{"a":1}{"b":2}', ""),
          },
        );
  return fc.record({
    path: fc
      .tuple(
        fc.tuple(...places.map(({ schema }) => fc.oneof(fc.constantFrom(...existing), mixed(arbitraryOf(schema))))),
        fc.record(
          Object.fromEntries(
            query.map(({ name, schema }) => [name, patient.has(name) ? fc.constant("5") : mixed(arbitraryOf(schema))]),
          ),
          // How long to wait is always said: what it is otherwise is longer than this test has.
          { requiredKeys: query.map(({ name }) => name).filter((name) => patient.has(name)) },
        ),
      )
      .map(([values, given]) => {
        let n = 0;
        const filled = path.replaceAll(/\{\w+\}/g, () => inPath(values[n++]));
        const search = new URLSearchParams(
          Object.entries(given).map(([name, value]): [string, string] => [name, asText(value)]),
        );
        return search.size === 0 ? filled : `${filled}?${search.toString()}`;
      }),
    body: bodies,
    type: fc.constantFrom("application/json", "application/json", "application/json; charset=utf-8", "text/plain", ""),
  });
}

/** Holds what an answer says against what any answer may be. */
async function ask(method: string, { path, body, type }: Request): Promise<void> {
  const asked = call<unknown>(path, {
    method: method.toUpperCase(),
    headers: { authorization: "Bearer an-admin-of-everything", ...(type ? { "content-type": type } : {}) },
    ...(body === undefined ? {} : { body }),
  });
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${soonMs} ms`)), soonMs);
  });
  const answer = await Promise.race([asked, late]).finally(() => clearTimeout(timer));
  const text = JSON.stringify(answer.body) ?? "";
  const fine = answer.status < 500 || answer.status === 504;
  expect([method, path, answer.status, fine, text]).toEqual([method, path, answer.status, true, text]);
  expect(text).not.toMatch(/\bat [^"]{0,200}(\.ts|\.js|node:internal)/);
}

/** The answer of `GET /events` has no end. */
const operations = (): [method: string, path: string, operation: Operation][] =>
  Object.entries(document.paths)
    .flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]): [string, string, Operation] => [method, path, operation]),
    )
    .filter(([method, path]) => !(path === "/events" && method === "get"));

test("whatever is asked, the answer is one that the document has, and soon", { timeout: 300_000 }, async () => {
  const wrong: string[] = [];
  for (const [method, path, operation] of operations()) {
    await fc
      .assert(
        fc.asyncProperty(requests(path, operation), (request) => ask(method, request)),
        { numRuns: runs },
      )
      .catch((error: unknown) => wrong.push(`${method} ${path}: ${String(error)} ${String((error as Error).cause)}`));
  }
  expect(wrong).toEqual([]);
  expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
});

/** Each once in each place where a text may be, everything else being fine: not left to chance. */
const hostileTexts = ["\0", "a\0b", "\uD800", "x".repeat(3_000), "'", "%", "\\", "9999999-01-01T00:00:00Z"];

test(
  "a hostile text in any one place of a request is answered as the document has it",
  { timeout: 300_000 },
  async () => {
    const wrong: string[] = [];
    for (const [method, path, { parameters, requestBody }] of operations()) {
      const known = path.includes("schedule") ? "hourly" : path.includes("queue") ? "fuzzed" : (existing[0] as string);
      const filled = path.replaceAll(/\{\w+\}/g, known);
      const bodySchema = requestBody?.content["application/json"]?.schema;
      const [sample] = bodySchema === undefined ? [] : fc.sample(arbitraryOf(bodySchema), { numRuns: 1, seed: 7 });
      const body = bodySchema === undefined ? undefined : { ...(sample as object), ...patience(bodySchema) };
      const asText = body === undefined ? undefined : JSON.stringify(body);
      const type = body === undefined ? "" : "application/json";
      const asked: Request[] = [];
      for (const hostile of hostileTexts) {
        for (const { name, in: where } of parameters) {
          if (where === "header") continue;
          if (where === "path")
            asked.push({
              path: path.replace(`{${name}}`, inPath(hostile)).replaceAll(/\{\w+\}/g, known),
              body: asText,
              type,
            });
          else asked.push({ path: `${filled}?${new URLSearchParams({ [name]: hostile })}`, body: asText, type });
        }
        for (const name of Object.keys((resolved(bodySchema)["properties"] ?? {}) as object))
          asked.push({ path: filled, body: JSON.stringify({ ...body, [name]: hostile }), type });
      }
      for (const request of asked)
        await ask(method, request).catch((error: unknown) =>
          wrong.push(`${method} ${request.path} ${request.body}: ${String(error)}`),
        );
    }
    expect(wrong).toEqual([]);
  },
);

/** What keeps no test waiting. */
function patience(schema: Schema): object {
  const fields = (resolved(schema)["properties"] ?? {}) as object;
  return Object.fromEntries(Object.keys(fields).flatMap((name) => (patient.has(name) ? [[name, 5]] : [])));
}

function resolved(schema: Schema = {}): Schema {
  const { $ref } = schema as { $ref?: string };
  return $ref === undefined ? schema : (document.components.schemas[$ref.replace("#/components/schemas/", "")] ?? {});
}
