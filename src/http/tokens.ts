/** The operations on tokens: who may come in. */
import { z } from "zod";
import { roles } from "../access/roles.ts";
import type { Tokens } from "../access/tokens.ts";
import { type Endpoints, endpoint } from "./endpoint.ts";
import { duration, given, storable } from "./read.ts";
import { snakeCased } from "./snake-case.ts";

const time = z.iso.datetime();
const tokenInfo = z
  .object({
    id: z.string().describe("The part by which it is recognised: `mr_<id>_…`."),
    name: z.string(),
    role: z.enum(roles),
    created_at: time,
    created_by: z.string().nullable(),
    expires_at: time.nullable(),
    last_used_at: time.nullable().describe("To the minute."),
    revoked_at: time.nullable(),
    revoked_by: z.string().nullable(),
  })
  .meta({ id: "Token" });

export function tokenEndpoints(tokens: Tokens): Endpoints {
  return [
    endpoint("Access", "GET /api/tokens", {
      summary: "The tokens of the database, newest first; never what would let somebody in",
      role: "admin",
      answers: { 200: z.object({ items: z.array(tokenInfo) }).meta({ id: "TokenList" }) },
      handle: async () => ({ items: (await tokens.list()).map(snakeCased) }),
    }),
    endpoint("Access", "POST /api/tokens", {
      summary: "Make a token; the answer is the only time that it is told",
      role: "admin",
      body: z.strictObject({
        name: z.string(),
        role: z.enum(roles).optional(),
        expires_in: duration.nullish(),
        by: storable.max(200).nullish(),
      }),
      answers: { 201: tokenInfo.extend({ token: z.string() }) },
      kept: "marker",
      async handle({ c, body }) {
        const { name, role, expires_in: expiresIn } = body;
        const by = body.by ?? c.get("caller")?.name;
        const { token, ...info } = await tokens.create({ name, ...given({ role, expiresIn, by }) });
        return { ...snakeCased(info), token };
      },
    }),
    endpoint("Access", "DELETE /api/tokens/:id", {
      summary: "Revoke a token: within five seconds nobody comes in with it",
      role: "admin",
      params: z.strictObject({ id: storable }),
      query: z.strictObject({ by: storable.max(200).optional() }),
      answers: { 204: null },
      errors: ["TOKEN_NOT_FOUND"],
      async handle({ c, params, query }) {
        await tokens.revoke(params.id, given({ by: query.by ?? c.get("caller")?.name }));
      },
    }),
  ];
}
