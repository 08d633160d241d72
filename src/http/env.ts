/** What a handler can see of its request beside the request itself. */
import type { HttpBindings } from "@hono/node-server";
import type { Context } from "hono";
import type { RequestIdVariables } from "hono/request-id";
import type { Caller } from "../access/roles.ts";

export interface ApiEnv {
  /** Node's request and response; absent when the API is called without a socket. */
  Bindings: Partial<HttpBindings> & {
    /** Called by this program itself: what protects a server from its callers is not for it. No request can say so. */
    readonly inProcess?: boolean;
  };
  Variables: RequestIdVariables & {
    /** The template it was routed by, or `unmatched`. */
    route: string;
    /** Who asks. Undefined on the way to what is for anybody, until somebody wants to know. */
    caller?: Caller;
  };
}

export type ApiContext = Context<ApiEnv>;
