/**
 * A client of the API for programs and browsers. Its paths, parameters, bodies and answers are those of the OpenAPI document; whatever
 * is not an answer is thrown, as an `ApiError` with a code. It brings in nothing: not the server, no package, no module of Node.
 */
import { ApiError, answerOf, unreachable } from "./api-error.ts";
import type { paths } from "./openapi.generated.ts";

export interface ClientOptions {
  /** Where the API is, such as `http://localhost:3003`. On a page it may be a path of the page's server. */
  readonly url: string;
  /** Made by `millrace token create`. Pages of the same server need none: the session of whoever has signed in goes along. */
  readonly token?: string | undefined;
  /** Default: the global one. */
  readonly fetch?: ((request: Request) => Promise<Response>) | undefined;
}

export interface Client {
  readonly get: Call<"get">;
  readonly post: Call<"post">;
  readonly patch: Call<"patch">;
  readonly delete: Call<"delete">;
}

type Method = "get" | "post" | "patch" | "delete";
type PathWith<M extends Method> = {
  [Path in keyof paths]: paths[Path][M] extends undefined ? never : Path;
}[keyof paths];

/** Resolves to what the API answers, throws `ApiError`. Options may be left out where none is required. */
type Call<M extends Method> = <Path extends PathWith<M>>(
  path: Path,
  ...options: Partial<Options<paths[Path][M]>> extends Options<paths[Path][M]>
    ? [options?: Options<paths[Path][M]>]
    : [options: Options<paths[Path][M]>]
) => Promise<Answer<paths[Path][M]>>;

type Options<Operation> = Params<Operation> &
  Body<Operation> & {
    /** Ends the call: `AbortSignal.timeout(5_000)`. */
    readonly signal?: AbortSignal;
    /** Beside those of the document, for what stands before the API. */
    readonly headers?: Readonly<Record<string, string>>;
  };
type Params<Operation> = Operation extends { parameters: infer Given }
  ? Partial<Given> extends Given
    ? { readonly params?: Given }
    : { readonly params: Given }
  : never;
type Body<Operation> = Operation extends { requestBody?: never }
  ? { readonly body?: never }
  : Operation extends { requestBody: Json<infer Given> }
    ? { readonly body: Given }
    : Operation extends { requestBody?: Json<infer Given> }
      ? { readonly body?: Given }
      : never;
type Answer<Operation> = Operation extends { responses: infer All }
  ? { [Status in keyof All]: Read<All[Status]> }[keyof All]
  : never;
type Read<One> =
  One extends Json<infer Given>
    ? Given
    : One extends { content: { "text/event-stream": unknown } }
      ? ReadableStream<Uint8Array>
      : One extends { content: { "text/plain": unknown } }
        ? string
        : undefined;
interface Json<Given> {
  content: { "application/json": Given };
}

/** What `Options` are, whatever the operation. */
interface AnyOptions {
  readonly params?: {
    readonly path?: Readonly<Record<string, string | number>>;
    readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
    readonly header?: Readonly<Record<string, string | undefined>>;
  };
  readonly body?: unknown;
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Throws `OPTION_INVALID` for what is no address. */
export function createClient({ url, token, fetch = globalThis.fetch }: ClientOptions): Client {
  const base = baseOf(url);
  const call =
    (method: string) =>
    async (path: string, options?: AnyOptions): Promise<unknown> => {
      const request = requestOf(method, base, path, options, token);
      try {
        return await answerOf(await fetch(request), request.url);
      } catch (cause) {
        throw cause instanceof ApiError || request.signal.aborted ? cause : unreachable(request.url, cause);
      }
    };
  return { get: call("GET"), post: call("POST"), patch: call("PATCH"), delete: call("DELETE") } as Client;
}

function requestOf(
  method: string,
  base: string,
  path: string,
  { params, body, signal, headers: more }: AnyOptions = {},
  token: string | undefined,
): Request {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(params?.path?.[name] ?? ""));
  const query = new URLSearchParams(entriesOf(params?.query)).toString();
  const headers = new Headers({ Accept: "application/json, */*;q=0.5" });
  // Only a page of the server's own can add it, which is how a session is told from a forgery.
  if (!token) headers.set("X-Millrace-CSRF", "1");
  else headers.set("Authorization", `Bearer ${token}`);
  if (body !== undefined) headers.set("Content-Type", "application/json");
  for (const [name, value] of entriesOf({ ...more, ...params?.header })) headers.set(name, value);
  return new Request(`${base}${filled}${query === "" ? "" : `?${query}`}`, {
    method,
    headers,
    body: body === undefined ? null : JSON.stringify(body),
    signal: signal ?? null,
    redirect: "error", // it would take the token elsewhere
  });
}

/** Those that were given. */
function entriesOf(given: Readonly<Record<string, string | number | boolean | undefined>> = {}): [string, string][] {
  return Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]));
}

function baseOf(url: string): string {
  const page = (globalThis as { location?: { href: string } }).location?.href;
  if (URL.canParse(url, page)) {
    const { protocol, href } = new URL(url, page);
    if (protocol === "http:" || protocol === "https:") return href.replace(/\/+$/, "");
  }
  throw new ApiError({
    code: "OPTION_INVALID",
    message: `url must be an address such as http://localhost:3003, not ${JSON.stringify(url)}.`,
    action: "Give a value of the kind the message asks for.",
  });
}
