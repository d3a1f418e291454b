# As on Binder: all that the book needs, with hashes, and torch's CPU build. `docker build -t rlheals .`
FROM python:3.11-slim
WORKDIR /rlheals
COPY . .
RUN bash .binder/postBuild
ENTRYPOINT ["rlheals"]
