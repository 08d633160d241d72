/** What a handler can see of its request beside the request itself. */
import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import type { RequestIdVariables } from "hono/request-id";

export interface ApiEnv {
  /** Node's request and response. Absent when the API is called without a socket. */
  Bindings: Partial<HttpBindings>;
  Variables: RequestIdVariables;
}

export type ApiContext = Context<ApiEnv>;
