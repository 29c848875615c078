import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

// Nothing is set for the gateway in front: pages, modules and the WebSocket for hot updates come through it as they are.
export default defineConfig({ plugins: [react()] });
