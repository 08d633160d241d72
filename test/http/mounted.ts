/** An API of some endpoints alone: nobody at the door asks who comes. */
import { Hono } from "hono";
import type { Endpoints } from "../../src/http/endpoint.ts";
import type { ApiEnv } from "../../src/http/env.ts";

export function mounted(endpoints: Endpoints): Hono<ApiEnv> {
  const api = new Hono<ApiEnv>();
  for (const one of endpoints) api.on(one.method, one.path, (c) => one.handle(c));
  return api;
}
