// The worker is found where it lies in the package; Vite's development server must not move the file that names it.
export default { optimizeDeps: { exclude: ['copyondemand/browser'] } };
