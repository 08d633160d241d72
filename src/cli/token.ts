/** `millrace token`: who may come in through the API. */
import { roles } from "../access/roles.ts";
import type { Token, TokenList } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { durationOption, given, invalid, wordOption } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { fromNow, paint, print, printJson, table } from "./print.ts";

const actions = ["create", "revoke"] as const;

export const token = command({
  meta: { name: "token", description: "List the tokens of the API, make one, or revoke one" },
  args: {
    action: {
      type: "positional",
      required: false,
      valueHint: actions.join("|"),
      description: "Left out: list them all",
    },
    which: { type: "positional", required: false, description: "create: a name for it; revoke: its id in the list" },
    role: { type: "string", valueHint: roles.join("|"), description: "create: what its holder may do; default viewer" },
    "expires-in": {
      type: "string",
      valueHint: "duration",
      description: "create: it counts no longer then; default never",
    },
    by: { type: "string", valueHint: "name", description: "Who does it, for the audit (default: $USER)" },
    ...doorArguments,
  },
  async run({ args }) {
    const { action, which, json } = args;
    const role = wordOption(args.role, "role", roles);
    const expiresIn = durationOption(args["expires-in"], "expires-in");
    const by = args.by ?? process.env["USER"];
    if (action !== undefined && which === undefined) throw invalid(`token ${action} needs ${needs(action)}.`);
    if (action !== "create" && (role !== undefined || expiresIn !== undefined))
      throw invalid("--role and --expires-in are for `token create`.");
    const door = await openApi(args);
    try {
      if (action === undefined) {
        const { items } = await door.ask<TokenList>("GET", "/api/tokens");
        return json ? printJson({ items }) : print(items.length === 0 ? "No tokens." : tableOf(items));
      }
      if (action === "revoke") {
        await door.ask("DELETE", withQuery(`/api/tokens/${encodeURIComponent(which as string)}`, { by }));
        return json ? printJson({ id: which, revoked: true }) : print(`Token ${which} is revoked.`);
      }
      const body = { name: which, ...given({ role, expires_in: expiresIn, by }) };
      const made = await door.ask<Token & { token: string }>("POST", "/api/tokens", body);
      if (json) return printJson(made);
      print(made.token);
      process.stderr.write(paint("dim", `Token ${made.id} for "${made.name}", ${made.role}. It is shown this once.\n`));
    } finally {
      await door.close();
    }
  },
});

function needs(action: string): string {
  if (action === "create") return "a name: what it is for, or who holds it";
  if (action === "revoke") return "the id of a token; `millrace token` lists them";
  throw invalid(`token can create and revoke, not "${action}".`);
}

function tableOf(items: readonly Token[]): string {
  const now = Date.now();
  const ago = (time: string | null): string => (time === null ? "" : fromNow(time, now));
  return table(
    ["id", "name", "role", "created", "last used", "state"],
    items.map((one) => [
      one.id,
      one.name,
      one.role,
      ago(one.created_at),
      ago(one.last_used_at),
      one.revoked_at !== null
        ? `revoked ${ago(one.revoked_at)}`
        : one.expires_at !== null
          ? `expires ${ago(one.expires_at)}`
          : "",
    ]),
  );
}
