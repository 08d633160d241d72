/** The OpenAPI document as a whole. That answers are as it says is for `contract.ts` to see, in all other tests. */
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { beforeAll, expect, test } from "vitest";
import { explanationSchema } from "../../src/http/answers-view.ts";
import { becauses } from "../../src/jobs/explain.ts";
import { useDatabase } from "../support/engine.ts";
import { callerOf, createApi, recorder } from "./caller.ts";
import type { Document } from "./contract.ts";

const file = useDatabase();
let api: ReturnType<typeof createApi>;
let document: Document;
beforeAll(async () => {
  const mill = await file.open();
  api = createApi(mill, { log: recorder() });
  document = (await callerOf(api)<Document>("/openapi.json", { from: "192.0.2.4" })).body;
  return () => mill.close();
});

const operations = () =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  );

/** What OpenAPI 3.1 asks of the parts that we use; other parts there are none. */
const map = (items: object) => ({ type: "object", additionalProperties: items });
const exactly = (properties: object, required: readonly string[]) => ({
  type: "object",
  properties,
  required,
  additionalProperties: false,
});
const word = { type: "string", minLength: 1 };
const schema = { type: "object", $ref: "https://json-schema.org/draft/2020-12/schema" };
const content = map(exactly({ schema }, ["schema"]));
const security = { type: "array", items: map({ type: "array", items: word }) };
const operation = exactly(
  {
    operationId: { type: "string", pattern: "^[a-z][A-Za-z0-9]*$" },
    summary: { type: "string", pattern: "^[A-Z][^\\n]*[^.]$" },
    description: word,
    tags: { type: "array", items: word, minItems: 1 },
    security,
    "x-role": { enum: ["public", "viewer", "operator", "admin"] },
    "x-route-class": { enum: ["api", "ops", "enqueue", "stream", "public", "probe"] },
    parameters: {
      type: "array",
      items: exactly({ name: word, in: { enum: ["path", "query", "header"] }, required: { type: "boolean" }, schema }, [
        "name",
        "in",
        "required",
        "schema",
      ]),
    },
    requestBody: exactly({ required: { type: "boolean" }, content }, ["content"]),
    responses: {
      type: "object",
      minProperties: 1,
      patternProperties: { "^[1-5][0-9][0-9]$": exactly({ description: word, content }, ["description"]) },
      additionalProperties: false,
    },
  },
  ["operationId", "summary", "tags", "parameters", "responses"],
);
const methods = Object.fromEntries(["get", "post", "patch", "put", "delete"].map((method) => [method, operation]));
const openApi = exactly(
  {
    openapi: { type: "string", pattern: "^3\\.1\\.\\d+$" },
    info: exactly({ title: word, version: word, description: word }, ["title", "version"]),
    servers: { type: "array", items: exactly({ url: word }, ["url"]) },
    security,
    tags: { type: "array", items: exactly({ name: word }, ["name"]), uniqueItems: true },
    paths: {
      type: "object",
      patternProperties: { "^/": exactly(methods, []) },
      additionalProperties: false,
    },
    components: exactly(
      {
        schemas: { ...map(schema), propertyNames: { pattern: "^[A-Za-z0-9._-]+$" } },
        securitySchemes: map({
          oneOf: [
            exactly({ type: { const: "http" }, scheme: word, description: word }, ["type", "scheme"]),
            exactly({ type: { const: "apiKey" }, in: { const: "cookie" }, name: word, description: word }, [
              "type",
              "in",
              "name",
            ]),
          ],
        }),
      },
      [],
    ),
  },
  ["openapi", "info", "paths"],
);

test("it is a document of OpenAPI 3.1, for anybody", () => {
  const ajv = new Ajv2020({ strictTypes: false, strictRequired: false, allErrors: true });
  addFormats.default(ajv);
  const validate = ajv.compile(openApi);
  validate(document);
  expect(validate.errors ?? []).toEqual([]);
});

test("operations have ids of their own, and components are where they are looked for", () => {
  const ids = operations().map(({ operation: { operationId } }) => operationId);
  expect(ids.length).toBeGreaterThan(20);
  expect(ids.filter((id, i) => ids.indexOf(id) !== i)).toEqual([]);
  const targets = [...JSON.stringify(document).matchAll(/"\$ref":"([^"]+)"/g)].map(([, target = ""]) => target);
  const there = Object.keys(document.components.schemas).map((name) => `#/components/schemas/${name}`);
  expect(there.toSorted()).toEqual([...new Set(targets)].toSorted());
});

test("every parameter of a path is declared, and nothing else", () => {
  for (const { path, operation: one } of operations()) {
    const declared = one.parameters.filter((parameter) => parameter.in === "path");
    expect([path, declared.map(({ name }) => name)]).toEqual([
      path,
      [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name),
    ]);
    expect(declared.every(({ required }) => required)).toBe(true);
  }
});

test("every operation that is not for anybody asks for credentials, and says how it refuses", () => {
  for (const { path, method, operation: one } of operations()) {
    const isPublic = one["x-role"] === "public";
    expect([method, path, (one.security ?? document.security).length === 0]).toEqual([method, path, isPublic]);
    expect(Object.keys(one.responses)).toEqual(expect.arrayContaining(isPublic ? ["400"] : ["400", "401", "403"]));
  }
});

test("it has every route but those of Bull Board, which are its own", () => {
  const documented = operations().map(
    ({ path, method }) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ":$1")}`,
  );
  const routes = new Set(
    api.routes
      .filter(({ method, path }) => method !== "ALL" && !path.startsWith("/admin/queues"))
      .map(({ method, path }) => `${method} ${path}`),
  );
  expect([...routes].toSorted()).toEqual(documented.toSorted());
});

test("an explanation has facts for every reason there is", () => {
  const told = explanationSchema.options.flatMap(({ shape }) => shape.because.options as readonly string[]);
  expect(told.toSorted()).toEqual([...becauses].toSorted());
});
