# What starts a flex template of Dataflow: the worker's image, and Google's launcher in it.
# docker build -f launch/images/template.Dockerfile --build-arg WORKER=IMAGE -t TEMPLATE .
ARG WORKER=adalabel-worker:local
ARG LAUNCHER=gcr.io/dataflow-templates-base/python312-template-launcher-base:latest

FROM ${LAUNCHER} AS launcher

FROM ${WORKER}
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY launch/images/template_classify.py launch/images/template_extract.py /template/
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/template_classify.py
ENTRYPOINT ["/opt/google/dataflow/python_template_launcher"]
