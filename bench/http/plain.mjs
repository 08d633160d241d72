/**
 * The limit: Hono on its Node server with nothing behind it. It answers what Millrace has answered, which it is given on its standard
 * input as `[{ method, path, text, type }]`, and reads the body of a POST.
 */
import { serve } from "@hono/node-server";
import { Hono } from "hono";

let given = "";
for await (const chunk of process.stdin) given += chunk;

const app = new Hono();
for (const { method, path, type, text } of JSON.parse(given)) {
  const value = type.startsWith("application/json") ? JSON.parse(text) : undefined;
  app.on(method, path, async (c) => {
    if (method === "POST") await c.req.json();
    return value === undefined ? c.text(text) : c.json(value);
  });
}
serve({ fetch: app.fetch, hostname: "127.0.0.1", port: Number(process.argv[2]) });
