/** Reading requests at the door: media type, size, syntax and shape, in that order. Inside, everything is typed. */
import { z } from "zod";
import { MillraceError } from "../core/errors.ts";
import { didYouMean } from "../core/options.ts";
import { isUuid } from "../core/uuid.ts";
import type { ApiContext } from "./env.ts";

/** What a query, a body or the parameters of a path are made of. */
export type Fields = z.ZodObject;

export const duration = z.union([z.number(), z.templateLiteral([z.number(), z.enum(["ms", "s", "m", "h", "d"])])], {
  error: 'expected a duration such as "30s" or a number of milliseconds',
});
export const storable = z.string().regex(/^[^\0]*$/, "expected a text without NUL characters");
// Without its zone, a time would mean another instant on another server.
export const instant = z
  .string()
  .regex(/(z|[+-]\d\d:\d\d)$/i, "expected an RFC 3339 time with its zone, such as 2027-01-31T08:00:00Z");

/** The JSON body as `schema` has it. Throws `UNSUPPORTED_MEDIA_TYPE`, `PAYLOAD_TOO_LARGE`, `BAD_REQUEST`, `OPTION_UNKNOWN`. */
export async function readBody<Schema extends z.ZodObject>(
  c: ApiContext,
  schema: Schema,
  maxBytes: number,
): Promise<z.infer<Schema>> {
  requireJson(c);
  return parse(schema, fromJson(await textOf(c, maxBytes), "body"));
}

/** The same for a body that may be left out. */
export async function readOptionalBody<Schema extends z.ZodObject>(
  c: ApiContext,
  schema: Schema,
  maxBytes: number,
): Promise<z.infer<Schema>> {
  const text = await textOf(c, maxBytes);
  if (text === "") return parse(schema, {});
  requireJson(c);
  return parse(schema, fromJson(text, "body"));
}

/** The parameters of the path. Throws `BAD_REQUEST`. */
export function readParams<Schema extends z.ZodObject>(c: ApiContext, schema: Schema): z.infer<Schema> {
  return parse(schema, withoutNul(c.req.param()));
}

/** The query string; a parameter without a value counts as left out. Throws `BAD_REQUEST`, `OPTION_UNKNOWN`. */
export function readQuery<Schema extends z.ZodObject>(c: ApiContext, schema: Schema): z.infer<Schema> {
  return parse(
    schema,
    withoutNul(Object.fromEntries(Object.entries(c.req.query()).filter(([, value]) => value !== ""))),
  );
}

/** Nothing in an address has a NUL, and PostgreSQL takes none: refused here, so that no handler need think of it. */
function withoutNul(fields: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  for (const [name, value] of Object.entries(fields)) {
    if (value.includes("\0"))
      throw new MillraceError("BAD_REQUEST", `${name}: expected a text without NUL characters.`);
  }
  return fields;
}

/** The id of a job in a path. */
export const jobIdParams = z.strictObject({
  id: z.string().refine(isUuid, {
    error: ({ input }) => `${JSON.stringify(String(input).slice(0, 80))} is not the id of a job: ids are UUIDs`,
  }),
});

/** The entries that were given: null is how some clients leave a field out. */
export function given<Fields extends object>(fields: Fields): { [Key in keyof Fields]?: NonNullable<Fields[Key]> } {
  const some: { [Key in keyof Fields]?: NonNullable<Fields[Key]> } = {};
  for (const key in fields) {
    const value = fields[key];
    if (value !== undefined && value !== null) some[key] = value;
  }
  return some;
}

function requireJson(c: ApiContext): void {
  const type = c.req.header("content-type") ?? "";
  if (/^application\/([\w.+-]+\+)?json\s*(;|$)/i.test(type)) return;
  throw new MillraceError(
    "UNSUPPORTED_MEDIA_TYPE",
    `The body must be application/json, not ${type === "" ? "without a type" : JSON.stringify(type.slice(0, 80))}.`,
  );
}

async function textOf(c: ApiContext, maxBytes: number): Promise<string> {
  if (c.env?.inProcess) return c.req.text();
  const length = c.req.header("content-length");
  if (Number(length ?? 0) > maxBytes) throw tooLarge(maxBytes);
  try {
    // A body that says its length cannot be longer, Node sees to that. One that does not is counted as it comes.
    return length === undefined ? await countedText(c.req.raw, maxBytes) : await c.req.text();
  } catch (cause) {
    if (cause instanceof MillraceError) throw cause;
    throw new MillraceError("BAD_REQUEST", "The body ended before all of it was sent.", { cause });
  }
}

async function countedText({ body }: Request, maxBytes: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.byteLength;
    if (bytes > maxBytes) throw tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}

function tooLarge(maxBytes: number): MillraceError {
  return new MillraceError("PAYLOAD_TOO_LARGE", `The body is longer than the ${maxBytes} bytes this server reads.`);
}

/** Throws `BAD_REQUEST`. */
export function fromJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MillraceError("BAD_REQUEST", `The ${what} is not JSON: ${(cause as Error).message}.`, { cause });
  }
}

/** Throws `BAD_REQUEST`, `OPTION_UNKNOWN`. */
function parse<Schema extends Fields>(schema: Schema, value: unknown): z.infer<Schema> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  for (const issue of result.error.issues) {
    if (issue.code !== "unrecognized_keys") continue;
    const [key = ""] = issue.keys;
    throw new MillraceError("OPTION_UNKNOWN", `Unknown field "${key}".${didYouMean(key, Object.keys(schema.shape))}`);
  }
  const issues = result.error.issues.map(({ path, message }) => `${path.join(".") || "body"}: ${message}`);
  throw new MillraceError("BAD_REQUEST", `${issues.join("; ")}.`);
}

/** The value of a field that has two names. Throws `BAD_REQUEST` when both are used: they may disagree. */
export function either<Fields, Ours extends keyof Fields & string, Theirs extends keyof Fields & string>(
  fields: Fields,
  ours: Ours,
  theirs: Theirs,
): Fields[Ours] | Fields[Theirs] {
  if (fields[ours] === undefined || fields[ours] === null) return fields[theirs];
  if (fields[theirs] === undefined || fields[theirs] === null) return fields[ours];
  throw new MillraceError("BAD_REQUEST", `${ours} and ${theirs} are two names of one field: give one of them.`);
}

/** An input may be written in a longer way than it is stored: `\u00e9` is 6 bytes of body and 2 of input; and the rest of the body. */
const bodyPerPayloadByte = 3;
const bodySlackBytes = 65_536;

/** The longest body for a job whose input may have so many bytes. */
export function bodyBytes(maxPayloadBytes: number): number {
  return maxPayloadBytes * bodyPerPayloadByte + bodySlackBytes;
}
