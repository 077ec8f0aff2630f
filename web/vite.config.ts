import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const proxy = process.env.CONSOLE_PROXY ?? 'http://127.0.0.1:9100';
const paths = { '/api': { target: proxy }, '^/(vnc|spice|serial/|console/)': { target: proxy, ws: true } };

export default defineConfig({
  // The page lives under any path, behind a front server.
  base: './',
  resolve: {
    alias: {
      // Part of the package, but not of what it exports.
      'novnc-scancodes': fileURLToPath(new URL('node_modules/@novnc/novnc/core/input/xtscancodes.js', import.meta.url)),
    },
  },
  build: {
    target: 'es2022',
    // Nothing becomes a data: address: the page's policy has no exception for it.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 600,
    rollupOptions: {
      output: {
        // Flat, and names that the proxy serves: letters, digits, `-`, `_`, `.`.
        entryFileNames: 'assets/[name]-[hash].js',
        chunkFileNames: 'assets/[name]-[hash].js',
        assetFileNames: 'assets/[name]-[hash][extname]',
        // The LGPL's: so it can be exchanged for another build of it.
        codeSplitting: { groups: [{ name: 'spice-html5', test: /@spice-project/ }] },
      },
    },
  },
  // In development the pages come from Vite and the rest from a proxy started by hand.
  server: { proxy: paths },
  preview: { proxy: paths },
  test: { environment: 'node', include: ['tests/**/*.test.ts'] },
} as Parameters<typeof defineConfig>[0]);
