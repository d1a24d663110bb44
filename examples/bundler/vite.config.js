// The package locates its worker relative to its own file, so Vite's development server must not move that file.
export default { optimizeDeps: { exclude: ['copyondemand/browser'] } };
