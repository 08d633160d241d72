import { PrismaPg } from "@prisma/adapter-pg";
import { fromPrisma } from "millrace/adapters";
import { expect, test } from "vitest";
import { PrismaClient } from "../support/prisma/generated/client.ts";
import { contract, onServer } from "./contract.ts";

contract("Prisma", onServer, ({ url }) => {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url }) });
  return {
    transaction: (work) =>
      prisma.$transaction((tx) => work(fromPrisma(tx), (id) => tx.$executeRaw`insert into orders values (${id})`)),
    close: () => prisma.$disconnect(),
  };
});

test("fromPrisma refuses the client itself, which would commit at once", async () => {
  const prisma = new PrismaClient({ adapter: new PrismaPg({}) });
  // @ts-expect-error: the client of a transaction cannot connect
  expect(() => fromPrisma(prisma)).toThrow("prisma.$transaction(async (tx) => …)");
  await prisma.$disconnect();
});
