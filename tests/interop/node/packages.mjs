// Finds packages in node_modules beside the scripts, or in NODE_PATH, which the import statement does not look at.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { resolve } = createRequire(import.meta.url);

export const load = (name) => import(pathToFileURL(resolve(name)));
