/**
 * One operation of the API, said once: its route, who may call it, what it takes and what it answers. The router, the roles, the
 * OpenAPI document, the typed client and the tests are all made from it.
 */
import { z } from "zod";
import type { Role } from "../access/roles.ts";
import type { ErrorCode } from "../core/errors.ts";
import type { ApiContext } from "./env.ts";
import { pace } from "./pace.ts";
import { type Fields, readBody, readOptionalBody, readParams, readQuery } from "./read.ts";

export type HttpMethod = "GET" | "POST" | "PATCH" | "DELETE";

/**
 * `api` reads; `ops` steers; `enqueue` brings work in; `stream` has no end; `public` is for anybody; `probe` says whether it goes, costs
 * next to nothing and is never limited. Limits and metrics go by it.
 */
export type RouteClass = "api" | "ops" | "enqueue" | "stream" | "public" | "probe";

/** The paths of class `probe`. They are handled as soon as they are read, before they are routed. */
const probes: ReadonlySet<string> = new Set(["/health", "/api/health", "/livez", "/readyz"]);
export const isProbe = (path: string): boolean => probes.has(path);

/** A body that is not JSON, or JSON with a name of its own. */
interface OtherAnswer {
  readonly contentType: string;
  readonly about: string;
  /** Default: a text. */
  readonly schema?: z.ZodType;
}

/** People go there with browsers: what is refused is told them as a page, where they take one. */
export const isForPeople = (path: string): boolean => path.startsWith("/auth/");

/** Null: no body. Several: as the caller's `Accept` has it. */
export type Answer = Body | readonly Body[] | null;
type Body = z.ZodType | OtherAnswer;

export interface Endpoint {
  readonly method: HttpMethod;
  /** As Hono has it: `/jobs/:id`. */
  readonly path: string;
  /** One sentence, without a dot at the end. */
  readonly summary: string;
  /** More, in Markdown. */
  readonly about: string | undefined;
  /** The heading it stands under. */
  readonly group: string;
  readonly role: Role | "public";
  readonly routeClass: RouteClass;
  readonly params: Fields | undefined;
  readonly query: Fields | undefined;
  /** For the document only: headers are read by whoever wants them. */
  readonly headers: Fields | undefined;
  readonly body: Fields | undefined;
  readonly bodyOptional: boolean;
  readonly answers: Readonly<Record<number, Answer>>;
  /** Beside those that any call may end with. */
  readonly errors: readonly ErrorCode[];
  /** What is kept under an `Idempotency-Key`; `marker`: that there was an answer, but not what it says; `never`: the key is not heeded here. */
  readonly kept: "answer" | "marker" | "never";
  /** `once`: what stands between a request that is understood and its being done. */
  handle(c: ApiContext, once?: Once): Promise<Response>;
}

/** Does what was asked, unless it was done before. */
export type Once = (
  asked: { readonly query: unknown; readonly body: unknown },
  answer: () => Promise<Response>,
) => Promise<Response>;

interface Call<Params extends Fields, Query extends Fields, Body extends Fields> {
  readonly c: ApiContext;
  readonly params: z.infer<Params>;
  readonly query: z.infer<Query>;
  readonly body: z.infer<Body>;
}

interface Definition<Params extends Fields, Query extends Fields, Body extends Fields> {
  readonly summary: string;
  readonly about?: string;
  readonly role: Role | "public";
  /** Default: `api` for a GET, `ops` for what changes something. */
  readonly routeClass?: RouteClass;
  readonly params?: Params;
  readonly query?: Query;
  readonly headers?: Fields;
  readonly body?: Body;
  /** The body may be left out: as if it were `{}`. */
  readonly bodyOptional?: boolean;
  /** Default 65 536. */
  readonly maxBodyBytes?: number;
  /** The first is the status of a value that `handle` returns. */
  readonly answers: Readonly<Record<number, Answer>>;
  readonly errors?: readonly ErrorCode[];
  /** Default: `never` for a GET, `answer` for what changes something. */
  readonly kept?: Endpoint["kept"];
  /** What it returns is sent as JSON, unless it is a response already; undefined: there is no body. */
  handle(call: Call<Params, Query, Body>): unknown;
}

const defaultBodyBytes = 65_536;
const none = z.strictObject({});

/** `route`: method and path, as in `"POST /jobs/:id/cancel"`. `group`: the heading it stands under in the documents. */
export function endpoint<
  Params extends Fields = typeof none,
  Query extends Fields = typeof none,
  Body extends Fields = typeof none,
>(group: string, route: `${HttpMethod} /${string}`, definition: Definition<Params, Query, Body>): Endpoint {
  const [method, path] = route.split(" ") as [HttpMethod, string];
  const { params, query, body, bodyOptional = false, maxBodyBytes = defaultBodyBytes, answers } = definition;
  const routeClass = definition.routeClass ?? (method === "GET" ? "api" : "ops");
  const [first = 200] = Object.keys(answers).map(Number);
  return {
    method,
    path,
    group,
    summary: definition.summary,
    about: definition.about,
    role: definition.role,
    routeClass,
    params,
    query,
    headers: definition.headers,
    body,
    bodyOptional,
    answers,
    errors: definition.errors ?? [],
    kept: definition.kept ?? (method === "GET" ? "never" : "answer"),
    async handle(c, once) {
      const call = {
        c,
        params: (params ? readParams(c, params) : {}) as z.infer<Params>,
        // A parameter nobody knows is a mistake: where there is no query, every one is.
        query: readQuery(c, query ?? (none as unknown as Query)),
        body: (body === undefined
          ? {}
          : await (bodyOptional ? readOptionalBody : readBody)(c, body, maxBodyBytes)) as z.infer<Body>,
      };
      const answer = async (): Promise<Response> => {
        const value = await definition.handle(call);
        if (routeClass !== "probe") await pace.turn();
        if (value instanceof Response) return value;
        if (value === undefined) return c.body(null, first as 204);
        if (query !== undefined && "after" in query.shape) linkNext(c, value as { readonly next?: unknown });
        return c.json(value as object, first as 200);
      };
      return once === undefined ? answer() : once(call, answer);
    },
  };
}

/** Where the page that follows is, for clients that know pages by their links (RFC 8288). */
function linkNext(c: ApiContext, { next }: { readonly next?: unknown }): void {
  if (typeof next !== "string" && typeof next !== "number") return;
  const { pathname, searchParams } = new URL(c.req.url);
  searchParams.set("after", String(next));
  c.header("Link", `<${pathname}?${searchParams.toString()}>; rel="next"`);
}

/** Endpoints of one group. */
export type Endpoints = readonly Endpoint[];
