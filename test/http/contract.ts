/** An API and its OpenAPI document say the same: every answer of every test is held against the document that is served beside it. */
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import type { createApi } from "../../src/http/api.ts";

type Api = ReturnType<typeof createApi>;

interface Content {
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
  readonly description: string;
}
interface Operation {
  readonly operationId: string;
  readonly summary: string;
  readonly security?: readonly object[];
  readonly "x-role": string;
  readonly parameters: readonly { readonly name: string; readonly in: string; readonly required: boolean }[];
  readonly responses: Readonly<Record<string, Content>>;
}
export interface Document {
  readonly openapi: string;
  readonly security: readonly object[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, object>> };
}

/** What may be said where the document has nothing: that there is nothing, and to strangers not even that. */
const refusals = ["ROUTE_NOT_FOUND", "METHOD_NOT_ALLOWED", "UNAUTHORIZED"];

/** The same API, but it throws where its answer is not what its document says. */
export function checked(api: Api, served: () => Promise<Response>): Api {
  const { fetch } = api;
  let contract: Promise<Contract> | undefined;
  api.fetch = async (request, ...rest) => {
    const response = await fetch(request, ...rest);
    contract ??= served().then(async (document) => contractOf(await document.text()));
    await (await contract).check(request.method, new URL(request.url).pathname, response.clone());
    return response;
  };
  return api;
}

/** Tests make many APIs, and all of them have one document. */
const contracts = new Map<string, Contract>();

function contractOf(text: string): Contract {
  const contract = contracts.get(text) ?? new Contract(JSON.parse(text) as Document);
  contracts.set(text, contract);
  return contract;
}

interface Route {
  readonly pattern: RegExp;
  readonly params: number;
  readonly operation: Operation;
  /** Of the operation in the document. */
  readonly pointer: string;
}

class Contract {
  readonly #routes = new Map<string, Route[]>();
  readonly #ajv = new Ajv2020({ strictTypes: false, allErrors: true });
  readonly #validators = new Map<string, ValidateFunction>();

  constructor(document: Document) {
    addFormats.default(this.#ajv);
    this.#ajv.addVocabulary(Object.keys(document)); // for it, the whole document is a schema
    this.#ajv.addSchema(document, "api");
    for (const [path, operations] of Object.entries(document.paths))
      for (const [method, operation] of Object.entries(operations))
        this.#add(method.toUpperCase(), path, operation, `paths/${path.replaceAll("/", "~1")}/${method}`);
    for (const routes of this.#routes.values()) routes.sort((a, b) => a.params - b.params);
  }

  #add(method: string, path: string, operation: Operation, pointer: string): void {
    const routes = this.#routes.get(method) ?? [];
    const pattern = new RegExp(`^${path.replaceAll(/\{\w+\}/g, "[^/]+").replaceAll(".", "\\.")}$`);
    routes.push({ pattern, params: path.split("{").length, operation, pointer });
    this.#routes.set(method, routes);
  }

  async check(method: string, path: string, response: Response): Promise<void> {
    if (path.startsWith("/admin/queues")) return; // Bull Board's own
    const found = this.#routes.get(method)?.find(({ pattern }) => pattern.test(path));
    const { status } = response;
    const where = `${method} ${path} ${status}`;
    if (found === undefined) {
      // Browsers are not told either.
      if (status === 303 || (status === 401 && response.headers.get("content-type")?.startsWith("text/html"))) return;
      const body = (await response.json()) as { code: string };
      this.#validate("components/schemas/Problem", body, where);
      if (!refusals.includes(body.code)) throw new Error(`${where}: the document has no such route.`);
      return;
    }
    const documented = found.operation.responses[status];
    if (documented === undefined) throw new Error(`${where}: the document has no such status.`);
    const type = response.headers.get("content-type")?.replace(/;.*/, "");
    if (documented.content === undefined) {
      if ((await response.text()) !== "") throw new Error(`${where}: the document has no body.`);
      return;
    }
    if (type === undefined || documented.content[type] === undefined)
      throw new Error(`${where}: the document has no ${type}, only ${Object.keys(documented.content).join(", ")}.`);
    if (!type.endsWith("json")) return;
    const body: unknown = await response.json();
    const at = `${found.pointer}/responses/${status}/content/${type.replace("/", "~1")}/schema`;
    this.#validate(at, body, where);
    if (
      type === "application/problem+json" &&
      !documented.description.includes(`\`${(body as { code: string }).code}\``)
    )
      throw new Error(
        `${where}: the document has no ${(body as { code: string }).code}, only ${documented.description}.`,
      );
  }

  #validate(pointer: string, body: unknown, where: string): void {
    const validate = this.#validators.get(pointer) ?? this.#ajv.compile({ $ref: `api#/${pointer}` });
    this.#validators.set(pointer, validate);
    if (validate(body)) return;
    const errors = this.#ajv.errorsText(validate.errors, { dataVar: "body" });
    throw new Error(`${where} is not as documented: ${errors}\n${JSON.stringify(body, null, 2)}`);
  }
}
