/** The module that the snippets of runbook 002 import: this is all it takes, the database comes from the environment. */
import { createQueueManager } from "millrace/bullmq";

export const QueueName = {
  AI_ANALYSIS: "ai-analysis",
  DOCUMENT_PROCESSING: "document-processing",
  NOTIFICATIONS: "notifications",
  EXPORT: "export",
  CACHE_WARMING: "cache-warming",
} as const;

export const queueManager = createQueueManager();
