/** The OpenAPI 3.1 document, made from the endpoints. */
import { z } from "zod";
import { type ErrorCode, errorCodes } from "../core/errors.ts";
import { type Answer, type Endpoint, type Endpoints, isForPeople } from "./endpoint.ts";
import { problemSchema } from "./problem.ts";
import type { Fields } from "./read.ts";
import { keyHeader } from "./repeats.ts";

type Json = Readonly<Record<string, unknown>>;

/** What any call may end with, beside what its endpoint says. */
const always = [
  "BAD_REQUEST",
  "OPTION_UNKNOWN",
  "OPTION_INVALID",
  "TOO_MANY_REQUESTS",
  "DATABASE_UNREACHABLE",
  "CLOSED",
  "INTERNAL",
] as const;
const guarded = ["UNAUTHORIZED", "FORBIDDEN"] as const;
/** A browser's session alone changes nothing. */
const changing = ["CSRF_REFUSED"] as const;
const withKey = ["IDEMPOTENCY_KEY_REUSED", "IDEMPOTENCY_CONFLICT"] as const;
const withBody = ["UNSUPPORTED_MEDIA_TYPE", "PAYLOAD_TOO_LARGE"] as const;

export function openApiDocument(endpoints: Endpoints, version: string): Json {
  const schemas = new Schemas();
  const paths: Record<string, Record<string, Json>> = {};
  for (const one of endpoints) {
    const path = one.path.replaceAll(/:(\w+)/g, "{$1}");
    (paths[path] ??= {})[one.method.toLowerCase()] = operation(one, schemas);
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Millrace",
      version,
      description: "Durable jobs on PostgreSQL. Errors are RFC 9457 problem documents with a stable `code`.",
    },
    servers: [{ url: "/" }],
    security: [{ token: [] }, { session: [] }],
    tags: [...new Set(endpoints.map(({ group }) => group))].map((name) => ({ name })),
    paths,
    components: {
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Made by `millrace token create`." },
        session: {
          type: "apiKey",
          in: "cookie",
          name: "__Host-millrace_session",
          description: "Set when somebody signs in. Changes also take the header `X-Millrace-CSRF: 1` or a JSON body.",
        },
      },
      schemas: schemas.shared,
    },
  };
}

function operation(one: Endpoint, schemas: Schemas): Json {
  return {
    operationId: operationId(one),
    summary: one.summary,
    ...(one.about === undefined ? {} : { description: one.about }),
    tags: [one.group],
    ...(one.role === "public" ? { security: [] } : {}),
    "x-role": one.role,
    "x-route-class": one.routeClass,
    parameters: [
      ...parametersOf(one.params ?? pathParams(one.path), "path", schemas),
      ...parametersOf(one.query, "query", schemas),
      ...parametersOf(one.headers, "header", schemas),
      ...(one.kept === "never" ? [] : parametersOf(keyHeader, "header", schemas)),
    ],
    ...(one.body === undefined
      ? {}
      : {
          requestBody: {
            required: !one.bodyOptional,
            content: { "application/json": { schema: schemas.of(one.body, "input") } },
          },
        }),
    responses: {
      ...Object.fromEntries(Object.entries(one.answers).map(([status, answer]) => [status, answerOf(answer, schemas)])),
      ...problemsOf(one, schemas),
    },
  };
}

/** `POST /jobs/:id/cancel` → `postJobsByIdCancel`. */
function operationId({ method, path }: Pick<Endpoint, "method" | "path">): string {
  const words = path.split(/[/.-]/).filter((word) => word !== "");
  const name = words.map((word) => (word.startsWith(":") ? `By${capital(word.slice(1))}` : capital(word))).join("");
  return method.toLowerCase() + (name === "" ? "Root" : name);
}

const capital = (word: string): string => word.charAt(0).toUpperCase() + word.slice(1);

const pathParams = (path: string): Fields =>
  z.strictObject(Object.fromEntries([...path.matchAll(/:(\w+)/g)].map(([, name]) => [name, z.string()])));

function parametersOf(fields: Fields | undefined, place: "path" | "query" | "header", schemas: Schemas): Json[] {
  if (fields === undefined) return [];
  return Object.entries(fields.shape).map(([name, schema]) => ({
    name,
    in: place,
    required: place === "path" || !(schema as z.ZodType).safeParse(undefined).success,
    schema: schemas.of(schema as z.ZodType, "input"),
  }));
}

function answerOf(answer: Answer, schemas: Schemas): Json {
  if (answer === null) return { description: "Done." };
  const content: Record<string, Json> = {};
  let description = "The answer.";
  for (const one of [answer].flat()) {
    if ("contentType" in one) {
      content[one.contentType] = { schema: one.schema ? schemas.of(one.schema, "output") : { type: "string" } };
      description = one.about;
    } else content["application/json"] = { schema: schemas.of(one, "output") };
  }
  return { description, content };
}

/** What becomes of a 401 at a browser. */
const toSignIn = {
  description: "To whoever takes HTML and nobody knows, where people sign in at an identity provider: the way there.",
};

function problemsOf(one: Endpoint, schemas: Schemas): Json {
  const codes: ErrorCode[] = [
    ...always,
    ...(one.role === "public" ? [] : guarded),
    ...(one.role === "public" || one.method === "GET" ? [] : changing),
    ...(one.body === undefined ? [] : withBody),
    ...(one.kept === "never" ? [] : withKey),
    ...one.errors,
  ];
  const byStatus = new Map<number, Set<ErrorCode>>();
  for (const code of codes) {
    const { status } = errorCodes[code];
    byStatus.set(status, (byStatus.get(status) ?? new Set()).add(code));
  }
  const opened = one.method === "GET" && one.role !== "public";
  const entries = [...byStatus].map(([status, found]) => [
    status,
    {
      description: [...found].map((code) => `\`${code}\``).join(", "),
      content: {
        "application/problem+json": { schema: schemas.refusal },
        ...(isForPeople(one.path) || (opened && status === 401) ? { "text/html": { schema: { type: "string" } } } : {}),
      },
    },
  ]);
  return { ...(opened ? { 303: toSignIn } : {}), ...(Object.fromEntries(entries) as Json) };
}

/** JSON Schemas of Zod's; those with an id of their own (`meta({ id })`) stand once, among the components. */
class Schemas {
  readonly shared: Record<string, unknown> = {};
  readonly refusal = this.of(problemSchema, "output");

  of(schema: z.ZodType, io: "input" | "output"): Json {
    const made = z.toJSONSchema(schema, { target: "draft-2020-12", io, unrepresentable: "any", override: refine });
    const { $schema: _, $defs: definitions = {}, ...rest } = made as Json & { $defs?: Record<string, Json> };
    for (const [name, definition] of Object.entries(definitions)) this.shared[name] ??= relocated(definition);
    return relocated(rest) as Json;
  }
}

/** A format says it all: Zod's pattern of a time is as long as this file is wide, three times. And no number here is that large. */
function refine({ jsonSchema }: { jsonSchema: Record<string, unknown> }): void {
  delete jsonSchema["~standard"];
  if (jsonSchema["format"] !== undefined) delete jsonSchema["pattern"];
  if (jsonSchema["minimum"] === Number.MIN_SAFE_INTEGER) delete jsonSchema["minimum"];
  if (jsonSchema["maximum"] === Number.MAX_SAFE_INTEGER) delete jsonSchema["maximum"];
}

function relocated(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(relocated);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(
        ([key]) => key !== "id" || typeof (value as Json)["id"] !== "string" || !("type" in value || "anyOf" in value),
      )
      .map(([key, inner]) => [
        key,
        key === "$ref" && typeof inner === "string"
          ? inner.replace("#/$defs/", "#/components/schemas/")
          : relocated(inner),
      ]),
  );
}
