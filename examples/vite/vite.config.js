import { defineConfig } from "vite";

export default defineConfig({
  server: {
    // Only simple-artifact-server is to reach it, and it says on which port.
    host: "127.0.0.1",
    port: Number(process.env.PORT ?? 9090),
    // On another port nobody would find it: better to fail, and be started again.
    strictPort: true,
    // The relay keeps the visitor's Host, whatever name the sandbox has. Who may come here is for
    // what stands in front to decide.
    allowedHosts: true,
    // No `hmr.clientPort`: the page then opens its WebSocket on the port it was loaded from, 8080 or
    // that of an edge in front.
  },
});
