/* The lab's model in plain JavaScript: a safetensors reader, the Llama forward pass with a key-value cache, greedy
   decoding and the word-level tokenizer. Classic scripts that share one object, Play: a browser loads neither modules
   nor, with fetch, weights from file://. */
"use strict";
globalThis.Play = globalThis.Play || {};
(() => {
  /** What a reader can be told in a sentence; every other error is a bug. */
  class Trouble extends Error {}
  const refuse = (sentence) => { throw new Trouble(sentence); };

  // --- weights

  const MAX_HEADER = 1e6;
  const MAX_WEIGHTS = 2 ** 27;
  const WIDTH = { F16: 2, BF16: 2, F32: 4 };
  const isCount = (value) => Number.isSafeInteger(value) && value >= 0;

  /** The number that 16 bits stand for in IEEE half precision. */
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
  }

  /** `bytes` (Uint8Array) of a type as a Float32Array; the file is little-endian, whatever the machine is. */
  function floats(bytes, type) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const out = new Float32Array(bytes.byteLength / WIDTH[type]);
    const bits = new DataView(new ArrayBuffer(4));
    for (let i = 0; i < out.length; i++) {
      if (type === "F32") out[i] = view.getFloat32(4 * i, true);
      else if (type === "F16") out[i] = half(view.getUint16(2 * i, true));
      else {
        bits.setUint32(0, view.getUint16(2 * i, true) << 16);
        out[i] = bits.getFloat32(0);
      }
    }
    return out;
  }

  /** Tensors by name, {shape, data: Float32Array}, of a safetensors file given as a Uint8Array.
      Trouble where the file is not whole or not believed. */
  function readSafetensors(bytes) {
    if (bytes.length < 8) refuse(`The weights are cut off: ${bytes.length} bytes are no safetensors file.`);
    const size = Number(new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0, true));
    if (size < 2 || size > MAX_HEADER || size > bytes.length - 8)
      refuse(`The weights are damaged: a header of ${size} bytes does not fit into ${bytes.length} bytes.`);
    let header;
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(8, 8 + size)));
    } catch {
      refuse("The weights are damaged: their header is no JSON.");
    }
    if (typeof header !== "object" || header === null || Array.isArray(header))
      refuse("The weights are damaged: their header is no table of tensors.");
    const data = bytes.subarray(8 + size), tensors = new Map(), spans = [];
    for (const [name, entry] of Object.entries(header)) {
      if (name === "__metadata__") continue;
      const { dtype, shape, data_offsets: at } = entry || {};
      if (!Object.hasOwn(WIDTH, dtype)) refuse(`The weights hold ${name} as ${dtype}; F16, BF16 and F32 are read.`);
      if (!Array.isArray(shape) || !shape.every(isCount) || !Array.isArray(at) || at.length !== 2 || !at.every(isCount))
        refuse(`The weights are damaged: the header's entry ${name} is not readable.`);
      const count = shape.reduce((product, length) => product * length, 1);
      if (count > MAX_WEIGHTS || at[1] - at[0] !== count * WIDTH[dtype])
        refuse(`The weights are damaged: ${name} has a size that does not fit its shape.`);
      if (at[1] > data.length) refuse(`The weights are cut off: ${name} ends behind the end of the file.`);
      const values = floats(data.subarray(at[0], at[1]), dtype);
      if (!values.every(Number.isFinite)) refuse(`The weights are damaged: ${name} holds numbers that are not finite.`);
      tensors.set(name, { shape, data: values });
      spans.push(at);
    }
    spans.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
    const end = spans.reduce((stop, at) => (at[0] === stop ? at[1] : NaN), 0);
    if (end !== data.length) refuse("The weights are damaged: their tensors overlap or leave bytes over.");
    return tensors;
  }

  /** base64 as a Uint8Array. */
  function decodeBase64(text) {
    let raw;
    try {
      raw = atob(text);
    } catch {
      refuse("The weights are damaged: they are no base64.");
    }
    return Uint8Array.from(raw, (character) => character.charCodeAt(0));
  }

  // --- words

  /** Words to tokens and back, from the vocabulary of a word-level tokenizer.json. */
  class Tokenizer {
    constructor(vocabulary) {
      this.ids = new Map(Object.entries(vocabulary));
      this.list = [];
      for (const [word, id] of this.ids) this.list[id] = word;
      this.end = this.encode("<end>")[0];
    }
    encode(text) {
      return text.split(" ").map((word) => this.ids.get(word) ?? refuse(`The model has no word "${word}".`));
    }
    words(tokens) { return tokens.map((token) => this.list[token] ?? "<unk>"); }
  }

  // --- the model

  /** y = W x; W (out, in) row by row. */
  function times(matrix, x) {
    const width = x.length, y = new Float32Array(matrix.length / width);
    for (let row = 0, at = 0; row < y.length; row++) {
      let sum = 0;
      for (let column = 0; column < width; column++) sum += matrix[at++] * x[column];
      y[row] = sum;
    }
    return y;
  }

  function normed(x, weight, epsilon) {
    let squares = 0;
    for (const value of x) squares += value * value;
    const scale = 1 / Math.sqrt(squares / x.length + epsilon);
    return x.map((value, i) => value * scale * weight[i]);
  }

  function softmax(scores) {
    const top = scores.reduce((best, value) => Math.max(best, value), -Infinity);
    const powers = Float64Array.from(scores, (value) => Math.exp(value - top));
    const sum = powers.reduce((total, value) => total + value, 0);
    return powers.map((value) => value / sum);
  }

  /** LlamaForCausalLM with an untied head: config.json as an object, and the tensors of `readSafetensors`. */
  class Model {
    constructor(config, tensors) {
      const known = (name) => (isCount(config[name]) && config[name] > 0 ? config[name]
        : refuse(`The model's config.json has no usable ${name}.`));
      if (config.model_type !== "llama" || config.tie_word_embeddings || config.attention_bias || config.mlp_bias ||
          config.hidden_act !== "silu" || (config.rope_parameters?.rope_type ?? "default") !== "default")
        refuse("The model's config.json describes another architecture than the lab's.");
      const vocabulary = known("vocab_size"), hidden = known("hidden_size"), inner = known("intermediate_size");
      this.heads = known("num_attention_heads");
      this.longest = known("max_position_embeddings");
      this.epsilon = config.rms_norm_eps;
      this.width = config.head_dim ?? hidden / this.heads;
      const keyHeads = config.num_key_value_heads ?? this.heads;
      const theta = config.rope_parameters?.rope_theta ?? config.rope_theta ?? 10000;
      if (keyHeads !== this.heads || this.width % 2) refuse("The model's heads are not those of the lab's models.");
      this.frequencies = Array.from({ length: this.width / 2 }, (_, i) => theta ** (-2 * i / this.width));
      const left = new Map(tensors);
      const take = (name, ...shape) => {
        const tensor = left.get(name) ?? refuse(`The weights lack ${name}.`);
        if (String(tensor.shape) !== String(shape))
          refuse(`The weights do not fit: ${name} is (${tensor.shape}), not (${shape}).`);
        left.delete(name);
        return tensor.data;
      };
      const across = this.heads * this.width;
      this.hidden = hidden;
      this.embeddings = take("model.embed_tokens.weight", vocabulary, hidden);
      this.layers = Array.from({ length: known("num_hidden_layers") }, (_, layer) => {
        const at = (name, ...shape) => take(`model.layers.${layer}.${name}.weight`, ...shape);
        return {
          before: at("input_layernorm", hidden),
          q: at("self_attn.q_proj", across, hidden), k: at("self_attn.k_proj", across, hidden),
          v: at("self_attn.v_proj", across, hidden), o: at("self_attn.o_proj", hidden, across),
          after: at("post_attention_layernorm", hidden),
          gate: at("mlp.gate_proj", inner, hidden), up: at("mlp.up_proj", inner, hidden),
          down: at("mlp.down_proj", hidden, inner),
        };
      });
      this.norm = take("model.norm.weight", hidden);
      this.head = take("lm_head.weight", vocabulary, hidden);
      for (const name of left.keys()) refuse(`The weights hold ${name}, which the model does not have.`);
    }

    /** The cache of an empty sequence: keys and values by layer, one vector for each token. */
    start() { return { length: 0, layers: this.layers.map(() => ({ keys: [], values: [] })) }; }

    /** Rotary embedding in place: of each head, coordinate i turns with coordinate i + width / 2. */
    turn(vector, position) {
      const half = this.width / 2;
      for (let from = 0; from < vector.length; from += this.width) {
        for (let i = from; i < from + half; i++) {
          const angle = position * this.frequencies[i - from], cos = Math.cos(angle), sin = Math.sin(angle);
          const one = vector[i], other = vector[i + half];
          vector[i] = one * cos - other * sin;
          vector[i + half] = other * cos + one * sin;
        }
      }
      return vector;
    }

    attend(query, keys, values) {
      const out = new Float32Array(query.length), scale = 1 / Math.sqrt(this.width);
      for (let from = 0; from < query.length; from += this.width) {
        const until = from + this.width;
        const weights = softmax(keys.map((key) => {
          let sum = 0;
          for (let i = from; i < until; i++) sum += query[i] * key[i];
          return sum * scale;
        }));
        values.forEach((value, position) => {
          for (let i = from; i < until; i++) out[i] += weights[position] * value[i];
        });
      }
      return out;
    }

    /** Read one more token into the cache; logits (vocabulary) of the next. */
    step(cache, token) {
      if (cache.length === this.longest) refuse(`The episode is longer than the model's ${this.longest} tokens.`);
      const position = cache.length++;
      const x = this.embeddings.slice(token * this.hidden, (token + 1) * this.hidden);
      const add = (change) => change.forEach((value, i) => { x[i] += value; });
      this.layers.forEach((layer, index) => {
        const read = normed(x, layer.before, this.epsilon), { keys, values } = cache.layers[index];
        keys.push(this.turn(times(layer.k, read), position));
        values.push(times(layer.v, read));
        add(times(layer.o, this.attend(this.turn(times(layer.q, read), position), keys, values)));
        const seen = normed(x, layer.after, this.epsilon), gate = times(layer.gate, seen), up = times(layer.up, seen);
        add(times(layer.down, gate.map((value, i) => value / (1 + Math.exp(-value)) * up[i])));
      });
      return times(this.head, normed(x, this.norm, this.epsilon));
    }

    /** Read a prompt (tokens beyond the cache), then the likeliest token again and again, up to the end token.
        [{token, p: probabilities of the vocabulary}] */
    answer(cache, prompt, end, most = 28) {
      let logits = null;
      for (const token of prompt) logits = this.step(cache, token);
      const made = [];
      while (made.length < most) {
        const p = softmax(logits), token = p.indexOf(p.reduce((best, value) => Math.max(best, value), 0));
        made.push({ token, p });
        if (token === end || made.length === most) break;
        logits = this.step(cache, token);
      }
      return made;
    }
  }

  /** A checkpoint as `rlheals report` writes it: {config, vocabulary, weights: base64}. */
  function open(file) {
    const { config, vocabulary, weights } = file;
    const tokenizer = new Tokenizer(vocabulary), model = new Model(config, readSafetensors(decodeBase64(weights)));
    if (tokenizer.list.length !== config.vocab_size) refuse("The model's words are not those of its vocabulary.");
    return { model, tokenizer };
  }

  Object.assign(Play, { Trouble, Tokenizer, Model, readSafetensors, decodeBase64, open });
})();
