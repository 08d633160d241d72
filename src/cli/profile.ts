/** `millrace profile`: servers by name, so that commands need no `--url` and no `--token`. */
import { everyCommand, command } from "./command.ts";
import { given, invalid } from "./arguments.ts";
import { print, printJson, table } from "./print.ts";
import { profilesFile, readProfiles, writeProfiles } from "./profiles.ts";

const actions = ["set", "remove"] as const;

export const profile = command({
  meta: { name: "profile", description: "List the servers that have a name here, name one, or forget one" },
  args: {
    action: {
      type: "positional",
      required: false,
      valueHint: actions.join("|"),
      description: "Left out: list them all",
    },
    name: { type: "positional", required: false, description: "Its name" },
    url: { type: "string", valueHint: "url", description: "set: where its API is" },
    token: {
      type: "string",
      description: "set: who asks there; default: MILLRACE_TOKEN, which the list of processes does not show",
    },
    ...everyCommand,
  },
  run({ args }) {
    const { action, name, url, json } = args;
    const path = profilesFile(process.env);
    const profiles = readProfiles(path);
    if (action === undefined) {
      const items = Object.entries(profiles).map(([known, one]) => ({
        name: known,
        url: one.url,
        token: one.token !== undefined,
      }));
      if (json) return printJson({ file: path, items });
      const rows = items.map((one) => [one.name, one.url, one.token ? "with a token" : ""]);
      return print(rows.length === 0 ? `No profiles in ${path}.` : table(["name", "url", ""], rows));
    }
    if (!actions.some((known) => known === action)) throw invalid(`profile can set and remove, not "${action}".`);
    if (name === undefined) throw invalid(`profile ${action} needs a name.`);
    if (action === "remove") {
      if (!Object.hasOwn(profiles, name)) throw invalid(`There is no profile "${name}" in ${path}.`);
      writeProfiles(path, Object.fromEntries(Object.entries(profiles).filter(([known]) => known !== name)));
      return json ? printJson({ name, removed: true }) : print(`Profile ${name} is gone.`);
    }
    if (url === undefined || !/^https?:\/\//.test(url) || !URL.canParse(url))
      throw invalid("profile set needs --url: http://… or https://….");
    const token = args.token ?? process.env["MILLRACE_TOKEN"];
    writeProfiles(path, { ...profiles, [name]: { url, ...given({ token }) } });
    if (json) printJson({ name, url, token: token !== undefined });
    else print(`Profile ${name} is ${url}${token === undefined ? ", without a token" : ""}.`);
  },
});
