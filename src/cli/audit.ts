/** `millrace audit [verify]`: who did what, and whether the record of that is whole. */
import type { AuditPage, AuditVerification } from "../client/index.ts";
import { doorArguments, openApi } from "./api-door.ts";
import { invalid, wordOption } from "./arguments.ts";
import { withQuery } from "./ask-api.ts";
import { command } from "./command.ts";
import { exitCodes } from "./exit-codes.ts";
import { pageArguments, pageLimit } from "./jobs.ts";
import { counted, fromNow, oneLine, paint, print, printJson, table } from "./print.ts";

const verbs = ["list", "verify"] as const;

/** A long record takes its time. */
const verifyExtraMs = 600_000;

export const audit = command({
  meta: { name: "audit", description: "Who did what; and whether the record of it is whole" },
  args: {
    verb: { type: "positional", required: false, description: `${verbs.join(", ")}; default list` },
    by: { type: "string", valueHint: "name", description: "Only what this caller did, or signed" },
    action: { type: "string", valueHint: "text", description: "Only this action, such as pause" },
    subject: { type: "string", valueHint: "text", description: "Only what was done to this, such as queue:mail" },
    ...pageArguments,
    ...doorArguments,
  },
  async run({ args }) {
    const { by, action, subject, after, limit, json } = args;
    const verb = wordOption(args.verb, "verb", verbs) ?? "list";
    const conditions = { by, action, subject, limit, after };
    for (const [option, value] of Object.entries(conditions))
      if (verb === "verify" && value !== undefined)
        throw invalid(`millrace audit verify: --${option} is for the list.`);
    const path = withQuery("/api/audit", { ...conditions, limit: pageLimit(limit) });
    const door = await openApi(args);
    try {
      if (verb === "list") {
        const page = await door.ask<AuditPage>("GET", path);
        return json ? printJson(page) : show(page);
      }
      const found = await door.ask<AuditVerification>("GET", "/api/audit/verify", undefined, verifyExtraMs);
      if (!found.whole) process.exitCode = exitCodes.failed;
      return json ? printJson(found) : print(sentence(found));
    } finally {
      await door.close();
    }
  },
});

function show({ items, next }: AuditPage): void {
  const now = Date.now();
  const rows = items.map((entry) => [
    entry.id,
    fromNow(entry.at, now),
    oneLine(entry.by ?? entry.actor_kind ?? "-", 30),
    oneLine(entry.action, 60),
    oneLine(entry.subject, 60),
    entry.outcome ?? "",
    entry.address ?? "",
    entry.details === null ? "" : oneLine(JSON.stringify(entry.details), 60),
  ]);
  const head = ["id", "at", "by", "action", "subject", "outcome", "from", "details"];
  print(rows.length === 0 ? "Nothing in the audit." : table(head, rows));
  if (next !== null) print(paint("dim", `\nMore: --after ${next}`));
}

function sentence({ verified, last, break: broken }: AuditVerification): string {
  if (broken !== null)
    return `The audit is broken (${broken.kind}): ${broken.message} ${counted(verified, "row")} before it verified.`;
  const rows = `${counted(verified, "row")} verified`;
  return last === null
    ? "The audit is whole: no rows."
    : `The audit is whole: ${rows}, up to row ${last.id} with hash ${last.hash}.`;
}
