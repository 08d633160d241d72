export { fromDrizzle } from "./adapters/drizzle.ts";
export { fromKysely } from "./adapters/kysely.ts";
export { fromPostgresJs } from "./adapters/postgres-js.ts";
export { fromPrisma } from "./adapters/prisma.ts";
