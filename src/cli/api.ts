/** `millrace api <method> <path> [body]`: any operation of the API as it is; its answer is printed as it comes. */
import { doorArguments, openApi } from "./api-door.ts";
import { invalid, readJson, wordOption } from "./arguments.ts";
import { answerOf } from "./ask-api.ts";
import { command } from "./command.ts";
import { print, printJson } from "./print.ts";

const methods = ["GET", "POST", "PATCH", "DELETE"] as const;
const patienceMs = 30_000;

export const api = command({
  meta: { name: "api", description: "Ask the API for any of its operations (/openapi.json lists them)" },
  args: {
    method: { type: "positional", required: true, valueHint: methods.join("|"), description: "Of the operation" },
    path: { type: "positional", required: true, description: "With its query: /jobs?status=failed" },
    body: { type: "positional", required: false, valueHint: "json", description: "Where the operation takes one" },
    ...doorArguments,
  },
  async run({ args }) {
    const method = wordOption(args.method.toUpperCase(), "method", methods) ?? "GET";
    if (!args.path.startsWith("/")) throw invalid(`The path begins with a slash, as in /jobs; not "${args.path}".`);
    const body = args.body === undefined ? undefined : readJson(args.body, "The body");
    if (body !== undefined && (typeof body !== "object" || body === null)) throw invalid("The body is a JSON object.");
    if (method === "GET" && body !== undefined) throw invalid("A GET takes no body.");
    const door = await openApi(args);
    try {
      if (method !== "GET") return printJson(await door.ask(method, args.path, body as object | undefined));
      const answer = await door.follow(args.path, undefined, AbortSignal.timeout(patienceMs));
      if (!answer.ok) return void (await answerOf(answer, "The API"));
      print((await answer.text()).trimEnd());
    } finally {
      await door.close();
    }
  },
});
